"""A tuning problem: data on the device, a network, a space, and the losses of the two levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cpmlho.core.regularisers import Regularisers
from cpmlho.core.response import General, Response, ResponseNetwork
from cpmlho.core.space import Space
from cpmlho.core.streams import Streams
from cpmlho.study.data import Arrays, DataError, split
from cpmlho.study.networks import build
from cpmlho.study.protocol import RunSpec
from cpmlho.study.results import Metrics
from cpmlho.study.settings import Training

EVALUATION_BATCH = 1000


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats (R1), in float32 whatever the outputs' dtype."""
    return F.cross_entropy(outputs.float(), labels)


def regularised_by_noise(outputs: Tensor, labels: Tensor, values: Tensor) -> Tensor:
    """The paper's lower level: dropout and cutout have acted on `outputs` already, and `values` adds nothing."""
    return cross_entropy(outputs, labels)


@dataclass(frozen=True)
class Split:
    """Examples on the device: images (N, ...) as `Problem.prepare` takes them, and labels (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class Batches:
    """Inputs and labels without end: whole batches of one fresh permutation after the other.

    Attributes:
        left: indices of the present permutation that are still to come; with `order`'s state, all that is remembered.
    """

    def __init__(self, part: Split, size: int, prepare: Callable[[Tensor], Tensor], order: torch.Generator) -> None:
        self._part, self._size, self._prepare, self._order = part, size, prepare, order
        self.left = part.labels.new_empty(0)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        if len(self.left) < self._size:
            self.left = torch.randperm(len(self._part), generator=self._order).to(self.left.device)
        index, self.left = self.left[: self._size], self.left[self._size :]
        return self._prepare(self._part.images[index]), self._part.labels[index]


@dataclass(frozen=True)
class Problem:
    """What a method needs to train and to be judged; it knows neither clock nor files.

    Attributes:
        train: examples of the lower level.
        valid: examples of the upper level.
        test: examples that decide nothing.
        network: its layers' responses are tuned.
        space: the hyperparameters; names that the network's Dropout stages or cutout know act there.
        training: batch size and learning rate of the lower level.
        epochs: the budget.
        seed: of all streams of randomness.
        dtype: of the training steps' products; master parameters and evaluation are float32.
        prepare: network inputs in float32 from stored images.
        train_loss: lower-level loss of (outputs, labels, hyperparameter values (B, n)).
        loss: upper-level loss of (outputs, labels), also what is evaluated.
        max_holes: an upper bound of cutout's holes.
        workers: how many independent trainings may go on side by side.
    """

    train: Split
    valid: Split
    test: Split
    network: ResponseNetwork
    space: Space
    training: Training
    epochs: int
    seed: int
    dtype: torch.dtype = torch.float32
    prepare: Callable[[Tensor], Tensor] = Tensor.float
    train_loss: Callable[[Tensor, Tensor, Tensor], Tensor] = regularised_by_noise
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    max_holes: int = 0
    workers: int = 1

    @classmethod
    def of(cls, spec: RunSpec, arrays: Arrays, device: torch.device, dtype: torch.dtype, workers: int = 1) -> Problem:
        """The problem of a run: the last part of the training file validates.

        Raises:
            DataError: there is not one whole batch to train on.
        """
        n = split(len(arrays.train_labels), spec.valid_fraction)
        if n < spec.training.batch_size:
            raise DataError(
                f"{spec.dataset}: {n} training examples are less than a batch of {spec.training.batch_size}"
            )
        mean, std = spec.data.mean, spec.data.std
        holes = spec.data.hyperparameters.get("cutout_holes")

        def on_device(part: slice, kind: str) -> Split:
            images, labels = getattr(arrays, f"{kind}_images")[part], getattr(arrays, f"{kind}_labels")[part]
            return Split(
                torch.as_tensor(images).unsqueeze(1).to(device), torch.as_tensor(labels).to(device, torch.int64)
            )

        return cls(
            train=on_device(slice(n), "train"),
            valid=on_device(slice(n, None), "train"),
            test=on_device(slice(None), "test"),
            network=build(spec.data.network),
            space=Space.of(spec.data.hyperparameters, device),
            training=spec.training,
            epochs=spec.data.epochs,
            seed=spec.seed,
            dtype=dtype,
            prepare=lambda images: images.to(torch.float32).mul_(1 / (255 * std)).sub_(mean / std),
            max_holes=int(holes.high) if holes else 0,
            workers=workers,
        )

    @property
    def device(self) -> torch.device:
        """Where the data lie and the run computes."""
        return self.train.images.device

    @property
    def iterations(self) -> int:
        """Whole batches in an epoch."""
        return len(self.train) // self.training.batch_size

    def streams(self) -> Streams:
        """The run's streams of randomness from their beginning; every trial of a search starts from here."""
        return Streams(self.seed, self.device)

    def batches(self, part: Split, order: torch.Generator) -> Batches:
        """Inputs and labels without end, of the batch size, or of the whole part if that is less."""
        return Batches(part, min(self.training.batch_size, len(part)), self.prepare, order)

    def initialise(self, generator: torch.Generator) -> tuple[list[General], list[Response]]:
        """Fresh parameters of the network on the device."""
        general, response = self.network.initialise(len(self.space.names), generator)
        return (
            [General(*(p.to(self.device) for p in layer)) for layer in general],
            [Response(*(p.to(self.device) for p in layer)) for layer in response],
        )

    def regularisers(self, values: Tensor, generator: torch.Generator) -> Regularisers:
        """Dropout and cutout at `values` (B, n)."""
        return Regularisers(self.space.names, values, self.max_holes, generator)

    @torch.no_grad()
    def evaluate(self, predict: Callable[[Tensor], Tensor]) -> Metrics:
        """Loss and accuracy of `predict` (inputs to outputs) over the whole validation and test splits."""
        valid_loss, valid_acc = self._score(predict, self.valid)
        test_loss, test_acc = self._score(predict, self.test)
        return Metrics(val_loss=valid_loss, val_acc=valid_acc, test_loss=test_loss, test_acc=test_acc)

    def _score(self, predict: Callable[[Tensor], Tensor], part: Split) -> tuple[float, float]:
        loss = torch.zeros((), device=self.device, dtype=torch.float64)
        correct = torch.zeros((), device=self.device, dtype=torch.int64)
        pairs = zip(part.images.split(EVALUATION_BATCH), part.labels.split(EVALUATION_BATCH), strict=True)
        for images, labels in pairs:
            outputs = predict(self.prepare(images))
            loss += self.loss(outputs, labels) * len(labels)
            correct += (outputs.argmax(1) == labels).sum()
        return loss.item() / len(part), correct.item() / len(part)
