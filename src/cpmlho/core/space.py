"""The hyperparameter space: bounded values and the unconstrained lambda that is optimised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cpmlho.study.settings import Hyperparameter, HyperparameterName


@dataclass(frozen=True)
class Space:
    """n hyperparameters with value = low + (high - low) sigmoid(lambda); bounds have shape (n,)."""

    names: tuple[str, ...]
    low: Tensor
    high: Tensor
    start: Tensor

    @classmethod
    def of(
        cls,
        ranges: Mapping[HyperparameterName, Hyperparameter] | Mapping[str, Hyperparameter],
        device: torch.device | None = None,
    ) -> Space:
        """The space of a dataset's ranges, in the order in which they are declared."""
        bounds = [[getattr(r, side) for r in ranges.values()] for side in ("low", "high", "start")]
        low, high, start = torch.tensor(bounds, dtype=torch.float32, device=device)
        return cls(tuple(ranges), low, high, start)

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
