"""The tuning problem of one specification, and the conditions that it is trained under."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from cpmlho.core.problem import Conditions, Problem, Split
from cpmlho.core.space import Space
from cpmlho.core.streams import Streams
from cpmlho.study.data import Arrays, DataError, split
from cpmlho.study.networks import build
from cpmlho.study.spec import RunSpec


def problem_of(spec: RunSpec, arrays: Arrays, device: torch.device) -> Problem:
    """The problem of a run: the last part of the training file validates, or a random part of the seed (R20).

    Raises:
        DataError: there is not one whole batch to train on.
    """
    n = split(len(arrays.train_labels), spec.valid_fraction)
    if n < spec.training.batch_size:
        raise DataError(f"{spec.dataset}: {n} training examples are less than a batch of {spec.training.batch_size}")
    order = slice(None) if spec.split == "last" else _permutation(len(arrays.train_labels), spec.seed)
    arrays = replace(arrays, train_images=arrays.train_images[order], train_labels=arrays.train_labels[order])
    mean, std = spec.data.mean, spec.data.std

    def prepare(images: torch.Tensor) -> torch.Tensor:
        return images.to(torch.float32).mul_(1 / (255 * std)).sub_(mean / std)

    def on_device(part: slice, kind: str) -> Split:
        images, labels = getattr(arrays, f"{kind}_images")[part], getattr(arrays, f"{kind}_labels")[part]
        images = torch.as_tensor(images).unsqueeze(1).to(device)
        return Split(images, torch.as_tensor(labels).to(device, torch.int64), prepare)

    return Problem(
        train=on_device(slice(n), "train"),
        valid=on_device(slice(n, None), "train"),
        test=on_device(slice(None), "test"),
        network=build(spec.data.network),
        space=Space.of({str(name): each for name, each in spec.data.hyperparameters.items()}, device),
    )


def _permutation(n: int, seed: int) -> NDArray[np.int64]:
    """An order of n examples that the seed alone decides, whatever the method."""
    return np.random.default_rng(Streams(seed, torch.device("cpu")).number("split")).permutation(n)


def conditions_of(spec: RunSpec, dtype: torch.dtype, workers: int = 1) -> Conditions:
    """The conditions of a run."""
    return Conditions(spec.training, spec.data.epochs, spec.seed, dtype, workers)
