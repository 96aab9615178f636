"""KMNIST (Clanuwat et al. 2018), from the files that torchvision saves in `KMNIST/raw`, gzipped or not."""

from __future__ import annotations

import gzip
from pathlib import Path

from cpmlho.study.registry import dataset


@dataset(label="KMNIST")
def kmnist(folder):
    """Return 60,000 + 10,000 images of 28 x 28 of ten characters."""
    from cpmlho.study.arrays import Arrays

    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return Arrays(*(read_idx(folder / "raw" / f"{name}-ubyte") for name in names))


def read_idx(path: Path):
    """Read an IDX file of bytes."""
    import numpy as np

    content = path.read_bytes() if path.exists() else gzip.decompress(Path(f"{path}.gz").read_bytes())
    axes = content[3]
    shape = [int.from_bytes(content[4 * axis : 4 * axis + 4]) for axis in range(1, axes + 1)]
    return np.frombuffer(content, np.uint8, offset=4 * axes + 4).reshape(shape)
