"""The tuning problem of one specification, and the conditions that it is trained under."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cpmlho.core.problem import Conditions, Problem, Split
from cpmlho.core.response import ResponseNetwork
from cpmlho.core.space import Space
from cpmlho.core.streams import Streams
from cpmlho.study.arrays import Arrays, DataError, split
from cpmlho.study.registry import NETWORKS, Shape
from cpmlho.study.spec import RunSpec

Part = tuple[NDArray[Any], NDArray[np.int64]]  # examples and their labels


def problem_of(spec: RunSpec, arrays: Arrays, device: torch.device) -> Problem:
    """The problem of a run.

    Raises:
        DataError: there is not one whole batch to train on, or the network, mean or cutout do not fit the examples.
    """
    train, valid = parts(spec, arrays)
    if len(train[1]) < spec.training.batch_size:
        batch = f"a batch of {spec.training.batch_size}"
        raise DataError(f"{spec.dataset}: {len(train[1])} training examples are less than {batch}")
    prepare = standardise(spec, arrays, device)

    def on_device(part: Part) -> Split:
        images = torch.as_tensor(part[0])
        images = images.unsqueeze(1) if images.dim() == 3 else images
        return Split(images.to(device), torch.as_tensor(part[1]).to(device, torch.int64), prepare)

    return Problem(
        train=on_device(train),
        valid=on_device(valid),
        test=on_device((arrays.test_images, arrays.test_labels)),
        network=build(spec, arrays.shape),
        space=Space.of({str(name): each for name, each in spec.data.hyperparameters.items()}, device),
    )


def parts(spec: RunSpec, arrays: Arrays) -> tuple[Part, Part]:
    """What trains and what validates: as the dataset has it, or the last part, or a random part of the seed (R20)."""
    images, labels = arrays.train_images, arrays.train_labels
    if arrays.valid_images is not None and arrays.valid_labels is not None:
        return (images, labels), (arrays.valid_images, arrays.valid_labels)
    n = split(len(labels), spec.valid_fraction)
    order = slice(None) if spec.split == "last" else _permutation(len(labels), spec.seed)
    images, labels = images[order], labels[order]
    return (images[:n], labels[:n]), (images[n:], labels[n:])


def standardise(spec: RunSpec, arrays: Arrays, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes inputs of stored examples: (value - mean) / std, after bytes are scaled to [0, 1].

    Raises:
        DataError: mean or std is a list, but not with a number for each channel.
    """

    def each(name: str) -> Any:
        value = getattr(spec.data, name)
        if not isinstance(value, list):
            return value
        if len(value) != arrays.shape[0]:
            wanted = f"a number, or a list of {arrays.shape[0]}, one for each channel"
            raise DataError(f"{spec.dataset}: {name} must be {wanted}, got {value}")
        return torch.tensor(value, device=device).view(-1, *(1,) * (len(arrays.shape) - 1))

    mean, std = each("mean"), each("std")
    scale = 255 if arrays.train_images.dtype == np.uint8 else 1

    def prepare(images: torch.Tensor) -> torch.Tensor:
        return images.to(torch.float32, copy=True).mul_(1 / (scale * std)).sub_(mean / std)

    return prepare


def build(spec: RunSpec, shape: Shape) -> ResponseNetwork:
    """The network that the configuration names, for examples of a shape.

    Raises:
        DataError: it does not fit them.
    """
    network, options = spec.data.network, spec.data.network.options
    try:
        built = NETWORKS[network.kind].build(inputs=shape, **vars(options))
        general, _ = built.initialise(1, torch.Generator())
        outputs = built.forward(torch.zeros(1, *shape), general).shape
    except Exception as error:  # whatever the network's file does
        message = " ".join(str(error).split())
        raise DataError(f"{spec.dataset}: network {network.kind}, on inputs of shape {shape}: {message}") from None
    if outputs != (1, options.output_units):
        wanted = f"(1, {options.output_units})"
        raise DataError(f"{spec.dataset}: network {network.kind}: an example's outputs are {outputs}, must be {wanted}")
    if len(shape) != 3 and "cutout_length" in spec.data.hyperparameters:
        raise DataError(f"{spec.dataset}: cutout is for images (channels, height, width), got inputs of shape {shape}")
    return built


def _permutation(n: int, seed: int) -> NDArray[np.int64]:
    """An order of n examples that the seed alone decides, whatever the method."""
    return np.random.default_rng(Streams(seed, torch.device("cpu")).number("split")).permutation(n)


def conditions_of(spec: RunSpec, dtype: torch.dtype, workers: int = 1, graphs: bool = False) -> Conditions:
    """The conditions of a run."""
    return Conditions(spec.training, spec.data.epochs, spec.seed, dtype, workers, graphs)
