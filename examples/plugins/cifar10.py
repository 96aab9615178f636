"""CIFAR-10 (Krizhevsky 2009) from its binary version: each record is a label and 3 x 32 x 32 bytes."""

from __future__ import annotations

from cpmlho.study.registry import dataset

TRAINING = [f"data_batch_{number}.bin" for number in range(1, 6)]
RECORD = 1 + 3 * 32 * 32


@dataset(label="CIFAR10")
def cifar10(folder):
    """Return 50,000 + 10,000 colour images of 32 x 32 in ten classes."""
    import numpy as np

    from cpmlho.study.arrays import Arrays

    def read(names):
        content = b"".join((folder / "cifar-10-batches-bin" / name).read_bytes() for name in names)
        records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
        return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]

    return Arrays(*read(TRAINING), *read(["test_batch.bin"]))
