"""What a method tells whoever runs it, and what it is told."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

WORST_LOSS = 1e3  # chance level of ten classes is 2.3


@dataclass(frozen=True)
class Metrics:
    """Mean loss and accuracy in [0, 1] on the two held-out splits; NaN or infinite if diverged."""

    val_loss: float
    val_acc: float
    test_loss: float
    test_acc: float

    @property
    def diverged(self) -> bool:
        """Whether a loss is no number, infinite, or beyond any that training comes back from."""
        return not (self.val_loss < WORST_LOSS and self.test_loss < WORST_LOSS)


class Tick(NamedTuple):
    """A sign of life between snapshots."""

    epoch: int  # complete ones, over all trials


class Update(NamedTuple):
    """A hyperparameter update: its number, the training iterations before it, and the values that it led to."""

    update: int
    step: int
    values: dict[str, float]


class PlaneState(NamedTuple):
    """An active cutting plane at the end of an epoch."""

    epoch: int
    step: int
    plane: int  # its number, from 1
    g: float  # |w_e - w_h|, the same for all planes
    phi: float
    mu: float
    gradient_share: float  # norm of all planes' gradient over that of the loss's, at the last response step
    layer: int  # from 1; 0 where a plane is on all of them


Weights = Callable[[], Sequence["tuple[Tensor, Tensor]"]]  # W and b, layer by layer
State = dict[str, Any]  # of tensors, numbers, text, and lists and dictionaries of these


@dataclass(frozen=True)
class Past:
    """What an interrupted run had done; a fresh one has none."""

    metrics: Sequence[Metrics] = ()  # of each snapshot, in order
    state: State | None = None  # what the last snapshot's `state` gave


FRESH = Past()


@dataclass(frozen=True)
class Cost:
    """What training took where it cannot be clocked from outside: side by side with other training."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Snapshot:
    """Where a method stands; whoever runs it evaluates, outside the training clock, and sends the metrics back."""

    epoch: int  # complete ones, over all trials
    step: int  # training iterations, over all trials
    predict: Callable[[Tensor], Tensor]  # inputs (B, ...) to outputs (B, outputs)
    hyperparameters: dict[str, float]  # values, in their own units
    updates: Sequence[Update] = ()  # since the last snapshot
    planes: Sequence[PlaneState] = ()
    state: Callable[[], State] = dict  # what the method needs to go on from here, beside the metrics
    weights: Weights | None = None  # of `predict`
    cost: Cost | None = None  # of the training since the last snapshot; None: the time between them


# A method is a generator, with the clock on between its yields. It yields a Snapshot where it wants to be evaluated,
# and then receives the metrics; it yields a Tick for nothing.
Method = Generator[Snapshot | Tick, Metrics | None, None]
