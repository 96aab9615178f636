"""The events that a method yields while it runs, and the data that it receives."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from cpmlho.core.planes import PlaneState

WORST_LOSS = 1e3  # chance level of ten classes is 2.3


@dataclass(frozen=True)
class Metrics:
    """Mean loss and accuracy in [0, 1] on the two held-out splits; NaN or infinite after divergence."""

    val_loss: float
    val_acc: float
    test_loss: float
    test_acc: float

    @property
    def diverged(self) -> bool:
        """Return whether a loss is NaN, infinite, or so large that training cannot recover."""
        return not (self.val_loss < WORST_LOSS and self.test_loss < WORST_LOSS)


class Tick(NamedTuple):
    """The end of an epoch without an evaluation, for the progress display."""

    epoch: int  # complete epochs, over all trials


class Update(NamedTuple):
    """A hyperparameter update: its number, the training iterations before it, and the values after it."""

    update: int
    step: int
    values: dict[str, float]


State = dict[str, Any]  # of tensors, numbers, text, and lists and dictionaries of these


@dataclass(frozen=True)
class Past:
    """The work of an interrupted run; empty for a new one."""

    metrics: Sequence[Metrics] = ()  # of each snapshot, in order
    state: State | None = None  # the result of the last snapshot's `state`
    epoch: int = 0  # of the last snapshot


FRESH = Past()


@dataclass(frozen=True)
class Cost:
    """The cost of a training that ran in parallel with others, so that the run cannot time it from outside."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Snapshot:
    """The state of a method. The run evaluates it, outside the training clock, and sends the metrics back."""

    epoch: int  # complete epochs, over all trials
    step: int  # training iterations, over all trials
    predict: Callable[[Tensor], Tensor]  # inputs (B, ...) to outputs (B, outputs), without dropout
    hyperparameters: dict[str, float]  # values, in their own units
    updates: Sequence[Update] = ()  # since the last snapshot
    planes: Sequence[PlaneState] = ()
    state: Callable[[], State] = dict  # all that the method needs to continue from here, except the metrics
    weights: Callable[[], dict[str, Tensor]] | None = None  # the network's state_dict
    train_loss: Tensor | None = None  # mean since the last snapshot, with dropout and cutout, ()
    cost: Cost | None = None  # of the training since the last snapshot; None: the time between them


# A method is a generator, timed between its yields. After a Snapshot it receives the metrics, after a Tick nothing.
Method = Generator[Snapshot | Tick, Metrics | None, None]
