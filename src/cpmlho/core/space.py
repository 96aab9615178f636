"""The hyperparameter space: bounded values and the unconstrained lambda that is optimised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Range(Protocol):
    """The range of one hyperparameter and its start, in its own units."""

    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102
    @property
    def start(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Space:
    """n hyperparameters with value = low + (high - low) sigmoid(lambda); bounds have shape (n,)."""

    names: tuple[str, ...]
    low: Tensor
    high: Tensor
    start: Tensor
    limits: dict[str, float]  # `high` by name, on the host

    @classmethod
    def of(cls, ranges: Mapping[str, Range], device: torch.device | None = None) -> Space:
        """The space of a dataset's ranges, in the order in which they are declared."""
        bounds = [[getattr(r, side) for r in ranges.values()] for side in ("low", "high", "start")]
        low, high, start = torch.tensor(bounds, dtype=torch.float32, device=device)
        return cls(tuple(ranges), low, high, start, {name: each.high for name, each in ranges.items()})

    def values(self, raw: Tensor) -> Tensor:
        """Values, in their own units, of unconstrained `raw` (..., n)."""
        return self.from_unit(torch.sigmoid(raw))

    def raw(self, values: Tensor) -> Tensor:
        """Unconstrained lambda (..., n) of values strictly inside the bounds; infinite at a bound."""
        return torch.logit((values - self.low) / (self.high - self.low))

    def from_unit(self, unit: Tensor) -> Tensor:
        """Values of points (..., n) in the unit cube, on which the search methods draw (R11)."""
        return self.low + (self.high - self.low) * unit

    def named(self, values: Tensor) -> dict[str, float]:
        """Values (n,) by name."""
        return dict(zip(self.names, values.tolist(), strict=True))
