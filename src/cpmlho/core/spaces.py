"""Ranges of hyperparameters, and the values that losses see, one an example."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Uniform:
    """A hyperparameter between `low` and `high`, tuned on the scale of its values.

    Args:
        low: lower bound, never reached.
        high: upper bound, never reached.
        start: where tuning starts; the middle if None.

    Raises:
        ValueError: low < start < high does not hold.
    """

    low: float
    high: float
    start: float | None = None

    def __post_init__(self) -> None:
        if self.start is None:
            object.__setattr__(self, "start", self._middle())
        if not -math.inf < self.low < self.first < self.high < math.inf:
            raise ValueError(f"low < start < high must hold, got {self.low}, {self.start}, {self.high}")

    @property
    def first(self) -> float:
        """The value at which tuning starts."""
        assert self.start is not None
        return self.start

    def value(self, raw: Tensor) -> Tensor:
        """Values of the unconstrained lambda: low + (high - low) sigmoid(lambda)."""
        return self.low + (self.high - self.low) * torch.sigmoid(raw)

    def raw(self, value: float) -> float:
        """The unconstrained lambda of a value inside the bounds."""
        unit = (value - self.low) / (self.high - self.low)
        return math.log(unit) - math.log1p(-unit)

    def _middle(self) -> float:
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class LogUniform(Uniform):
    """A hyperparameter between `low` > 0 and `high`, tuned on the scale of its logarithm; arguments as `Uniform`."""

    def __post_init__(self) -> None:
        if self.low <= 0:
            raise ValueError(f"the low bound of a logarithmic range must be above 0, got {self.low}")
        super().__post_init__()

    def value(self, raw: Tensor) -> Tensor:
        """Values of the unconstrained lambda: low (high / low)^sigmoid(lambda)."""
        return self.low * torch.exp(torch.sigmoid(raw) * math.log(self.high / self.low))

    def raw(self, value: float) -> float:
        """The unconstrained lambda of a value inside the bounds."""
        unit = math.log(value / self.low) / math.log(self.high / self.low)
        return math.log(unit) - math.log1p(-unit)

    def _middle(self) -> float:
        return math.sqrt(self.low * self.high)


class Values:
    """Hyperparameter values by name: `h.decay`, or `h["decay"]`, is (B,), one value an example.

    Attributes:
        generator: the stream of randomness for what acts at these values (augmentation).
        read: the names that have been asked for.
    """

    def __init__(self, space: Mapping[str, Uniform], raw: Tensor, generator: torch.Generator) -> None:
        self._values = {name: range_.value(raw[:, i]) for i, (name, range_) in enumerate(space.items())}
        self.generator, self.read = generator, set[str]()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._values:
            raise KeyError(f"the space has no hyperparameter {name!r}; it has {', '.join(self._values)}")
        self.read.add(name)
        return self._values[name]

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(*error.args) from None

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)


class Ranges:
    """The ranges side by side."""

    def __init__(self, space: Mapping[str, Uniform]) -> None:
        self._ranges = list(space.values())

    def values(self, raw: Tensor) -> Tensor:
        """Values (n,) of lambda (n,)."""
        return torch.stack([range_.value(raw[i]) for i, range_ in enumerate(self._ranges)])
