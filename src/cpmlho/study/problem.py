"""The tuning problem of one run: data on the device, a network, a space, and the losses of both levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cpmlho.core.augment import Dropout, cutout
from cpmlho.core.net import Net
from cpmlho.core.options import Training
from cpmlho.core.response import evaluating, initialise
from cpmlho.core.spaces import Space, Uniform, Values
from cpmlho.core.streams import Streams
from cpmlho.study.arrays import Arrays, DataError, split
from cpmlho.study.events import Metrics
from cpmlho.study.registry import NETWORKS, Shape
from cpmlho.study.spec import RunSpec

EVALUATION_BATCH = 1000
Part = tuple[NDArray[Any], NDArray[np.int64]]  # examples and their labels
Batch = tuple[Tensor, Tensor]  # inputs (B, ...) in float32, labels (B,)


@dataclass(frozen=True)
class Split:
    """Examples on the device.

    Attributes:
        images: (N, ...) as they are stored.
        labels: (N,).
        prepare: converts stored images into network inputs in float32.
    """

    images: Tensor
    labels: Tensor
    prepare: Callable[[Tensor], Tensor] = Tensor.float

    def __len__(self) -> int:
        return len(self.labels)


class Batches(Iterator[Batch]):
    """Endless batches of inputs and labels: the full batches of one random permutation after another."""

    def __init__(self, part: Split, size: int, order: torch.Generator) -> None:
        self._part, self._size, self._order = part, min(size, len(part)), order
        self._left = part.labels.new_empty(0)  # remaining indices of the current permutation

    def __next__(self) -> Batch:
        if len(self._left) < self._size:
            self._left = torch.randperm(len(self._part), generator=self._order).to(self._left.device)
        index, self._left = self._left[: self._size], self._left[self._size :]
        return self._part.prepare(self._part.images[index]), self._part.labels[index]

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that later batches depend on."""
        return {"left": self._left.clone(), "order": self._order.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict`."""
        self._left = state["left"]
        self._order.set_state(state["order"].cpu())


@dataclass(frozen=True)
class Problem:
    """The tuning problem: data, network and losses.

    Attributes:
        train: examples of the lower level.
        valid: examples of the upper level.
        test: examples that are only evaluated.
        network: builds the network; its parameters are initialised again for each training.
        space: the hyperparameters; a `Dropout` of the network, or cutout, uses the values of the same name.
    """

    train: Split
    valid: Split
    test: Split
    network: Callable[[], nn.Module]
    space: Space

    @property
    def device(self) -> torch.device:
        """The device of the data and of all computations."""
        return self.train.images.device

    def module(self, init: torch.Generator) -> nn.Module:
        """Return a newly initialised network on the device.

        Linear and convolution layers draw from `init`, other layers from its seed. A `Dropout` that is not tuned does
        nothing.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(init.initial_seed())
            module = self.network()
        initialise(module, init)
        for part in module.modules():
            if isinstance(part, Dropout) and part.fixed is None:
                part.fixed = 0.0
        return module.to(self.device)

    def train_loss(self, net: Net | nn.Module, batch: Batch, h: Values) -> Tensor:
        """Return the lower level's loss per example, (B,): cross-entropy in nats, dropout and cutout at `h` (R1)."""
        inputs, labels = batch
        if "cutout_holes" in h:
            holes = int(self.space["cutout_holes"].high)
            inputs = cutout(inputs, h.cutout_length, h.cutout_holes, max_holes=holes, generator=h.generator)
        return F.cross_entropy(net(inputs).float(), labels, reduction="none")

    def valid_loss(self, net: Net, batch: Batch) -> Tensor:
        """Return the upper level's mean loss, (): cross-entropy in nats, without dropout and cutout."""
        return F.cross_entropy(net(batch[0]).float(), batch[1])

    def evaluate(self, predict: Callable[[Tensor], Tensor]) -> Metrics:
        """Return loss and accuracy of `predict` (inputs to outputs) on the validation and test splits, in float32."""
        valid_loss, valid_acc = self._score(predict, self.valid)
        test_loss, test_acc = self._score(predict, self.test)
        return Metrics(val_loss=valid_loss, val_acc=valid_acc, test_loss=test_loss, test_acc=test_acc)

    def final_train_loss(self, predict: Callable[[Tensor], Tensor]) -> float:
        """Return the mean loss of `predict` on the training split, evaluated like the other splits."""
        return self._score(predict, self.train)[0]

    @torch.no_grad()
    def _score(self, predict: Callable[[Tensor], Tensor], part: Split) -> tuple[float, float]:
        loss = torch.zeros((), device=self.device, dtype=torch.float64)
        correct = torch.zeros((), device=self.device, dtype=torch.int64)
        pairs = zip(part.images.split(EVALUATION_BATCH), part.labels.split(EVALUATION_BATCH), strict=True)
        for images, labels in pairs:
            outputs = predict(part.prepare(images))
            loss += F.cross_entropy(outputs.float(), labels) * len(labels)
            correct += (outputs.argmax(1) == labels).sum()
        return loss.item() / len(part), correct.item() / len(part)


def predictor(module: nn.Module, net: Callable[[Tensor], Tensor] | None = None) -> Callable[[Tensor], Tensor]:
    """Return a function that computes the outputs of `module`, or of `net`, in evaluation mode."""

    def predict(inputs: Tensor) -> Tensor:
        with evaluating(module):
            return (net or module)(inputs)

    return predict


@dataclass(frozen=True)
class Budget:
    """The training of a problem, the same for every method.

    Attributes:
        training: options of the lower level.
        epochs: epochs of each training.
        seed: seed of all random streams.
        evaluate_every: epochs between evaluations; the last epoch is always evaluated.
        dtype: dtype of products in training steps; parameters and evaluation are float32.
        workers: how many independent trainings may run in parallel.
    """

    training: Training
    epochs: int
    seed: int
    evaluate_every: int = 1
    dtype: torch.dtype = torch.float32
    workers: int = 1

    def iterations(self, problem: Problem) -> int:
        """Return the number of full batches in an epoch."""
        return len(problem.train) // self.training.batch_size

    def evaluates(self, epoch: int) -> bool:
        """Return whether the network is evaluated after this epoch; the first is 1."""
        return epoch == self.epochs or epoch % self.evaluate_every == 0

    def streams(self, problem: Problem) -> Streams:
        """Return the random streams in their initial state, in which every trial of a search starts."""
        return Streams(self.seed, problem.device)

    def batches(self, part: Split, order: torch.Generator) -> Batches:
        """Return endless batches of the batch size, or of the whole split if that is smaller."""
        return Batches(part, self.training.batch_size, order)

    def optimizer(self, module: nn.Module) -> torch.optim.SGD:
        """Return the SGD of eqs. 13 and 14."""
        return torch.optim.SGD(module.parameters(), self.training.learning_rate, momentum=self.training.momentum)

    @property
    def autocast(self) -> torch.dtype | None:
        """The dtype of products; None if it is that of the parameters."""
        return None if self.dtype == torch.float32 else self.dtype

    def casting(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return a context that autocasts to the dtype of products."""
        return nullcontext() if self.autocast is None else torch.autocast(device.type, self.autocast)


def problem_of(spec: RunSpec, arrays: Arrays, device: torch.device) -> Problem:
    """Return the problem of a run.

    Raises:
        DataError: there is less than one training batch, or network, mean, std or cutout do not fit the examples.
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
        network=builder(spec, arrays.shape),
        space=Space({name: Uniform(r.low, r.high, r.start) for name, r in spec.data.hyperparameters.items()}),
    )


def budget_of(spec: RunSpec, dtype: torch.dtype, workers: int = 1) -> Budget:
    """Return the budget of a run."""
    return Budget(spec.training, spec.data.epochs, spec.seed, spec.data.evaluate_every, dtype, workers)


def parts(spec: RunSpec, arrays: Arrays) -> tuple[Part, Part]:
    """Return training and validation split; the latter is the dataset's own, the file's last part, or random (R20)."""
    images, labels = arrays.train_images, arrays.train_labels
    if arrays.valid_images is not None and arrays.valid_labels is not None:
        return (images, labels), (arrays.valid_images, arrays.valid_labels)
    n = split(len(labels), spec.valid_fraction)
    order = slice(None) if spec.split == "last" else _permutation(len(labels), spec.seed)
    images, labels = images[order], labels[order]
    return (images[:n], labels[:n]), (images[n:], labels[n:])


def standardise(spec: RunSpec, arrays: Arrays, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return a function from stored examples to inputs: (value - mean) / std, after bytes are scaled to [0, 1].

    Raises:
        DataError: mean or std is a list without exactly one number for each channel.
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

    def prepare(images: Tensor) -> Tensor:
        return images.to(torch.float32, copy=True).mul_(1 / (scale * std)).sub_(mean / std)

    return prepare


def builder(spec: RunSpec, shape: Shape) -> Callable[[], nn.Module]:
    """Return a function that builds the configured network for examples of a shape.

    Raises:
        DataError: the network does not fit the examples.
    """
    network, options = spec.data.network, spec.data.network.options
    build = partial(NETWORKS[network.kind].build, inputs=shape, **vars(options))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            outputs = build().eval()(torch.zeros(1, *shape)).shape
    except Exception as error:  # anything that the network's file raises
        message = " ".join(str(error).split())
        raise DataError(f"{spec.dataset}: network {network.kind}, on inputs of shape {shape}: {message}") from None
    if outputs != (1, options.output_units):
        wanted = f"(1, {options.output_units})"
        raise DataError(f"{spec.dataset}: network {network.kind}: an example's outputs are {outputs}, must be {wanted}")
    if len(shape) != 3 and "cutout_length" in spec.data.hyperparameters:
        raise DataError(f"{spec.dataset}: cutout is for images (channels, height, width), got inputs of shape {shape}")
    return build


def _permutation(n: int, seed: int) -> NDArray[np.int64]:
    """Return an order of n examples that depends only on the seed, not on the method."""
    return np.random.default_rng(Streams(seed, torch.device("cpu")).number("split")).permutation(n)
