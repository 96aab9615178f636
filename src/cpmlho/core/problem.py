"""A tuning problem: data on the device, a network, a space, and the losses of the two levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cpmlho.core.events import Metrics
from cpmlho.core.options import Training
from cpmlho.core.regularisers import Regularisers
from cpmlho.core.response import General, Response, ResponseNetwork
from cpmlho.core.space import Space
from cpmlho.core.streams import Streams

EVALUATION_BATCH = 1000


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats (R1), in float32 whatever the outputs' dtype."""
    return F.cross_entropy(outputs.float(), labels)


def regularised_by_noise(outputs: Tensor, labels: Tensor, values: Tensor) -> Tensor:
    """The paper's lower level: dropout and cutout have acted on `outputs` already, and `values` adds nothing."""
    return cross_entropy(outputs, labels)


@dataclass(frozen=True)
class Split:
    """Examples on the device.

    Attributes:
        images: (N, ...) as they are stored.
        labels: (N,).
        prepare: network inputs in float32 from stored images.
    """

    images: Tensor
    labels: Tensor
    prepare: Callable[[Tensor], Tensor] = Tensor.float

    def __len__(self) -> int:
        return len(self.labels)


class Batches:
    """Inputs and labels without end: whole batches of one fresh permutation after the other.

    Attributes:
        left: indices of the present permutation that are still to come; with `order`'s state, all that is remembered.
    """

    def __init__(self, part: Split, size: int, order: torch.Generator) -> None:
        self._part, self._size, self._order = part, min(size, len(part)), order
        self.left = part.labels.new_empty(0)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        if len(self.left) < self._size:
            self.left = torch.randperm(len(self._part), generator=self._order).to(self.left.device)
        index, self.left = self.left[: self._size], self.left[self._size :]
        return self._part.prepare(self._part.images[index]), self._part.labels[index]


@dataclass(frozen=True)
class Problem:
    """What is tuned: data, network and losses.

    Attributes:
        train: examples of the lower level.
        valid: examples of the upper level.
        test: examples that decide nothing.
        network: its layers' responses are tuned.
        space: the hyperparameters; names that the network's Dropout stages or cutout know act there.
        train_loss: lower-level loss of (outputs, labels, hyperparameter values (B, n)).
        loss: upper-level loss of (outputs, labels), also what is evaluated.
    """

    train: Split
    valid: Split
    test: Split
    network: ResponseNetwork
    space: Space
    train_loss: Callable[[Tensor, Tensor, Tensor], Tensor] = regularised_by_noise
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy

    @property
    def device(self) -> torch.device:
        """Where the data lie and all is computed."""
        return self.train.images.device

    def initialise(self, generator: torch.Generator) -> tuple[list[General], list[Response]]:
        """Fresh parameters of the network on the device."""
        general, response = self.network.initialise(len(self.space.names), generator)
        return (
            [General(*(p.to(self.device) for p in layer)) for layer in general],
            [Response(*(p.to(self.device) for p in layer)) for layer in response],
        )

    def regularisers(self, values: Tensor, generator: torch.Generator) -> Regularisers:
        """Dropout and cutout at `values` (B, n)."""
        return Regularisers(self.space.names, values, self.space.limits, generator)

    @torch.no_grad()
    def evaluate(self, predict: Callable[[Tensor], Tensor]) -> Metrics:
        """Loss and accuracy of `predict` (inputs to outputs) over the whole validation and test splits."""
        valid_loss, valid_acc = self._score(predict, self.valid)
        test_loss, test_acc = self._score(predict, self.test)
        return Metrics(val_loss=valid_loss, val_acc=valid_acc, test_loss=test_loss, test_acc=test_acc)

    @torch.no_grad()
    def train_loss_of(self, predict: Callable[[Tensor], Tensor]) -> float:
        """Mean upper-level loss of `predict` over the whole training split, as `evaluate` takes it over the others."""
        return self._score(predict, self.train)[0]

    def _score(self, predict: Callable[[Tensor], Tensor], part: Split) -> tuple[float, float]:
        loss = torch.zeros((), device=self.device, dtype=torch.float64)
        correct = torch.zeros((), device=self.device, dtype=torch.int64)
        pairs = zip(part.images.split(EVALUATION_BATCH), part.labels.split(EVALUATION_BATCH), strict=True)
        for images, labels in pairs:
            outputs = predict(part.prepare(images))
            loss += self.loss(outputs, labels) * len(labels)
            correct += (outputs.argmax(1) == labels).sum()
        return loss.item() / len(part), correct.item() / len(part)


@dataclass(frozen=True)
class Conditions:
    """How a problem is trained, whatever the method.

    Attributes:
        training: of the lower level.
        epochs: the budget.
        seed: of all streams of randomness.
        dtype: of the training steps' products; master parameters and evaluation are float32.
        workers: how many independent trainings may go on side by side.
        graphs: whether the GPU, which there must be, replays steps as CUDA graphs.
    """

    training: Training
    epochs: int
    seed: int
    dtype: torch.dtype = torch.float32
    workers: int = 1
    graphs: bool = False

    def iterations(self, problem: Problem) -> int:
        """Whole batches in an epoch."""
        return len(problem.train) // self.training.batch_size

    def streams(self, problem: Problem) -> Streams:
        """The streams of randomness from their beginning; every trial of a search starts from here."""
        return Streams(self.seed, problem.device)

    def batches(self, part: Split, order: torch.Generator) -> Batches:
        """Inputs and labels without end, of the batch size, or of the whole part if that is less."""
        return Batches(part, self.training.batch_size, order)
