"""Ranges of hyperparameters, the space that they span, and the values that losses see."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
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
        learning_rate: of lambda's steps for this hyperparameter; None: the method's `hyper_learning_rate`.

    Raises:
        ValueError: low < start < high does not hold, or the learning rate is not above 0.
    """

    low: float
    high: float
    start: float | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if self.start is None:
            object.__setattr__(self, "start", self._middle())
        if not -math.inf < self.low < self.first < self.high < math.inf:
            raise ValueError(f"low < start < high must hold, got {self.low}, {self.start}, {self.high}")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")

    @property
    def first(self) -> float:
        """The value at which tuning starts."""
        assert self.start is not None
        return self.start

    def value(self, lam: Tensor) -> Tensor:
        """Values at the unconstrained lambda: low + (high - low) sigmoid(lambda)."""
        return self.at(torch.sigmoid(lam))

    def at(self, unit: Tensor) -> Tensor:
        """Values at points of [0, 1]."""
        return self.low + (self.high - self.low) * unit

    def unit(self, value: float) -> float:
        """The point of [0, 1] with this value."""
        return (value - self.low) / (self.high - self.low)

    def lam(self, value: float) -> float:
        """The unconstrained lambda of a value inside the bounds."""
        unit = self.unit(value)
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

    def at(self, unit: Tensor) -> Tensor:
        """Values at points of [0, 1]: low (high / low)^unit."""
        return self.low * torch.exp(unit * math.log(self.high / self.low))

    def unit(self, value: float) -> float:
        """The point of [0, 1] with this value."""
        return math.log(value / self.low) / math.log(self.high / self.low)

    def _middle(self) -> float:
        return math.sqrt(self.low * self.high)


class Space(dict[str, Uniform]):
    """Hyperparameters by name, in the order of lambda's n entries."""

    def start(self) -> list[float]:
        """Lambda of the start values, n numbers."""
        return [each.lam(each.first) for each in self.values()]

    def relative_rates(self, common: float) -> list[float] | None:
        """The learning rates over the common one, n numbers; None if no range has a rate of its own."""
        own = [each.learning_rate for each in self.values()]
        return [(rate or common) / common for rate in own] if any(own) else None

    def at(self, unit: Tensor) -> Tensor:
        """Values (..., n) at points of the unit cube."""
        return torch.stack([each.at(unit[..., i]) for i, each in enumerate(self.values())], -1)

    def value(self, lam: Tensor) -> Tensor:
        """Values (..., n) at lambda (..., n)."""
        return self.at(torch.sigmoid(lam))

    def named(self, values: Tensor) -> dict[str, float]:
        """Values (n,) by name."""
        return dict(zip(self, values.tolist(), strict=True))


class Values:
    """Hyperparameter values by name: `h.decay`, or `h["decay"]`, is (B,), one value for each example.

    Attributes:
        generator: the random stream for what acts at these values (augmentation).
        read: the names that were read.
        rows: B.
    """

    def __init__(self, space: Iterable[str], values: Tensor, generator: torch.Generator) -> None:
        self._values = {name: values[:, i] for i, name in enumerate(space)}
        self.generator, self.read, self.rows = generator, set[str](), len(values)

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
