"""What a method is to the harness that runs it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from cpmlho.results import Metrics, Row


class Tick(NamedTuple):
    """A sign of life between snapshots."""

    epoch: int  # complete ones, over all trials


@dataclass(frozen=True)
class Snapshot:
    """Where a method stands; the harness evaluates it, outside the training clock, and sends the metrics back."""

    epoch: int  # complete ones, over all trials
    step: int  # training iterations, over all trials
    predict: Callable[[Tensor], Tensor]  # inputs (B, 1, H, W) to logits (B, outputs)
    hyperparameters: dict[str, float]  # values, in their own units
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)  # new rows, by file name


# A method is a generator: the harness runs it between its yields with the clock on. It yields a Snapshot where it
# wants to be evaluated, and then receives the metrics; it yields a Tick for nothing.
Method = Generator[Snapshot | Tick, Metrics | None, None]
