"""Write the test subset of the full datasets: `python tests/data/make_subset.py DATA_DIR`.

DATA_DIR is torchvision's root with the full, uncompressed files. The first 2,000 training and the first 500 test
examples of each dataset are written next to this script, in the same format and layout. They are gzipped without a
time, so the same input always gives the same bytes. The SHA-256 sums of the uncompressed files are printed for
smoke.yaml.
"""

import gzip
import hashlib
import sys
from pathlib import Path

KEPT = {"train": 2000, "t10k": 500}


def cut(content: bytes, n: int) -> bytes:
    """Return the first `n` entries of an IDX array of bytes."""
    dimensions = content[3]
    header = 4 + 4 * dimensions
    length = int.from_bytes(content[4:8])
    size = (len(content) - header) // length
    return content[:4] + n.to_bytes(4) + content[8 : header + n * size]


def main(root: Path) -> None:
    """Write the subset of both datasets and print its checksums."""
    for dataset in ("MNIST", "FashionMNIST"):
        folder = Path(__file__).parent / dataset / "raw"
        folder.mkdir(parents=True, exist_ok=True)
        print(dataset)
        for path in sorted((root / dataset / "raw").glob("*-ubyte")):
            content = cut(path.read_bytes(), KEPT[path.name.split("-")[0]])
            (folder / f"{path.name}.gz").write_bytes(gzip.compress(content, mtime=0))
            print(f"  {path.name}: {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
