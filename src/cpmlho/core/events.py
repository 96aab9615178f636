"""What a method is to the harness that runs it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from cpmlho.study.results import Metrics, Row


class Tick(NamedTuple):
    """A sign of life between snapshots."""

    epoch: int  # complete ones, over all trials


State = dict[str, Any]  # of tensors, numbers, text, and lists and dictionaries of these


@dataclass(frozen=True)
class Past:
    """What an interrupted run had done; a fresh one has none."""

    metrics: Sequence[Metrics] = ()  # of each snapshot, in order
    state: State | None = None  # what the last snapshot's `state` gave


FRESH = Past()


@dataclass(frozen=True)
class Cost:
    """What training took where the harness cannot clock it: side by side with other training."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Snapshot:
    """Where a method stands; the harness evaluates it, outside the training clock, and sends the metrics back."""

    epoch: int  # complete ones, over all trials
    step: int  # training iterations, over all trials
    predict: Callable[[Tensor], Tensor]  # inputs (B, 1, H, W) to logits (B, outputs)
    hyperparameters: dict[str, float]  # values, in their own units
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)  # new rows, by file name
    state: Callable[[], State] = dict  # what the method needs to go on from here, beside the metrics
    cost: Cost | None = None  # of the training since the last snapshot; None: the time between them


# A method is a generator: the harness runs it between its yields with the clock on. It yields a Snapshot where it
# wants to be evaluated, and then receives the metrics; it yields a Tick for nothing.
Method = Generator[Snapshot | Tick, Metrics | None, None]
