"""A dataset in memory: its arrays, what they must be to train on, and their checksum."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpmlho.study.registry import READERS


class DataError(Exception):
    """The data cannot be had or used; the message says in one line what is wrong, where, and what would be right."""


class MissingDataError(DataError):
    """A file of the data is not there; the verb `data` fetches it."""


@dataclass(frozen=True)
class Arrays:
    """One dataset: examples and the class of each, a whole number from 0, in the files' order.

    Examples are (N, features), images (N, height, width) of one channel, or (N, channels, height, width). Bytes are
    scaled from 0-255 to [0, 1] before the configuration's mean and standard deviation are applied; numbers of another
    type are used as they are. If there are no validation examples, a part of the training examples validates.
    """

    train_images: NDArray[Any]
    train_labels: NDArray[np.int64]
    test_images: NDArray[Any]
    test_labels: NDArray[np.int64]
    valid_images: NDArray[Any] | None = None
    valid_labels: NDArray[np.int64] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an example: (features,) or (channels, height, width)."""
        own: tuple[int, ...] = self.train_images.shape[1:]
        return (1, *own) if len(own) == 2 else own

    def first(self, examples: int | None) -> Arrays:
        """Return the same with only the first training examples; with all of them if `examples` is None.

        Raises:
            DataError: there are fewer.
        """
        if len(self.train_labels) < (examples or 0):
            raise DataError(f"examples must be at most {len(self.train_labels)}, all there are, got {examples}")
        kept = slice(examples)
        return replace(self, train_images=self.train_images[kept].copy(), train_labels=self.train_labels[kept].copy())

    def sha256(self) -> str:
        """Return the checksum of the type, shape and content of all arrays."""
        found = hashlib.sha256()
        for name, array in self._each():
            found.update(f"{name} {array.dtype.str} {array.shape}\n".encode() + np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def verify(self, sha256: str | None) -> None:
        """Compare the checksum with the pinned one, if there is one.

        Raises:
            DataError: they differ.
        """
        if sha256 and (found := self.sha256()) != sha256:
            raise DataError(
                f"the arrays have SHA-256 {found}, and were pinned at {sha256} on their first load; restore the data,"
                " or remove the dataset's record in the results' folder `data` to pin the data that are there now"
            )

    def check(self, outputs: int) -> None:
        """Check that a network can be trained on the arrays.

        Args:
            outputs: the number of the network's outputs.

        Raises:
            DataError: examples or labels are of a wrong type, shape, number or range.
        """
        for part, name in (("train", "training"), ("test", "test"), ("valid", "validation")):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            if (images is None) != (labels is None):
                raise DataError("valid_images and valid_labels must be given together")
            if images is not None:
                self._check_examples(images, name)
                _check_labels(labels, len(images), name, outputs)

    def _check_examples(self, images: NDArray[Any], name: str) -> None:
        if images.dtype.kind not in "buif" or images.ndim not in (2, 3, 4):
            wanted = "numbers of shape (N, features), (N, height, width) or (N, channels, height, width)"
            raise DataError(f"the {name} examples must be {wanted}, got {images.dtype} of shape {images.shape}")
        if not len(images):
            raise DataError(f"there are no {name} examples")
        if images.shape[1:] != self.train_images.shape[1:] or images.dtype != self.train_images.dtype:
            got, wanted = (f"{each.dtype} of shape {each.shape[1:]}" for each in (images, self.train_images))
            raise DataError(f"each of the {name} examples must be like the training examples, {wanted}, got {got}")
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            raise DataError(f"the {name} examples hold {(~np.isfinite(images)).sum()} values that are not finite")

    def _each(self) -> list[tuple[str, NDArray[Any]]]:
        arrays = ((each.name, getattr(self, each.name)) for each in fields(self))
        return [(name, array) for name, array in arrays if array is not None]


def _check_labels(labels: NDArray[Any], examples: int, name: str, outputs: int) -> None:
    if labels.dtype.kind not in "ui" or labels.ndim != 1:
        got = f"{labels.dtype} of shape {labels.shape}"
        raise DataError(f"the {name} labels must be whole numbers of shape (N,), one an example, got {got}")
    if len(labels) != examples:
        raise DataError(f"each example needs one label, got {examples} {name} examples and {len(labels)} labels")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= outputs:
        more = f" or network.output_units: {high + 1}" if low >= 0 else ""
        raise DataError(f"the {name} labels must be from 0 to {outputs - 1}{more}, got {low} to {high}")


def described(reader: str) -> str:
    """Return the name of a reader with its file."""
    return f"reader {reader} of {os.path.relpath(READERS[reader].read.__code__.co_filename)}"


def read_by(reader: str, folder: Path, where: str) -> Arrays:
    """Return the arrays of a registered reader, writable.

    Raises:
        DataError: it fails, or returns something else; the message begins with `where`.
    """
    try:
        found = READERS[reader].read(folder)
    except Exception as error:  # whatever the user's file does
        raise DataError(" ".join(f"{where}: {type(error).__name__}: {error}".split())) from None
    if not isinstance(found, Arrays):
        raise DataError(f"{where}: must return Arrays, got {type(found).__name__}")
    given = {name: np.require(array, requirements="W") for name, array in vars(found).items() if array is not None}
    return replace(found, **given)


def split(n: int, valid_fraction: float) -> int:
    """Return the number of training examples when the last part of `n` examples validates.

    The validation part is `n * valid_fraction` rounded to the nearest integer, a half to the even one, but neither
    part is empty.

    Raises:
        DataError: fewer than two examples cannot be split.
    """
    if n < 2:
        raise DataError(f"at least 2 examples are needed for a training and a validation part, got {n}")
    return n - min(max(round(n * valid_fraction), 1), n - 1)
