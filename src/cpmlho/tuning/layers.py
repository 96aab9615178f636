"""The stages that networks are made of: layers with weights, places of dropout, and parameter-free glue.

Glue goes through the linearised pass by its derivative along a tangent t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Linear:
    """A linear layer."""

    inputs: int
    outputs: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of W."""
        return (self.outputs, self.inputs)

    def apply(self, a: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """`weight a + bias` for a (B, in)."""
        return F.linear(a, weight, bias)


@dataclass(frozen=True)
class Conv2d:
    """A convolution with stride 1 and zero padding."""

    inputs: int
    outputs: int
    kernel: int
    padding: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of W."""
        return (self.outputs, self.inputs, self.kernel, self.kernel)

    def apply(self, a: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The convolution of a (B, in, H, W)."""
        return F.conv2d(a, weight, bias, padding=self.padding)


Layer = Linear | Conv2d


def where_positive(t: Tensor, a: Tensor) -> Tensor:
    """`t` where a > 0, else 0; linear in `t`. ReLU's own derivative kernel, where a comparison would not vectorise."""
    result: Tensor = torch.ops.aten.threshold_backward(t, a, 0)
    return result


@dataclass(frozen=True)
class Dropout:
    """The place where dropout with the rate `name` acts."""

    name: str


class Glue(Protocol):
    """A parameter-free stage between layers."""

    def apply(self, a: Tensor) -> Tensor:
        """The stage itself."""

    def lift(self, a: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The stage at `a` and its directional derivative along `t`."""


@dataclass(frozen=True)
class Lifted:
    """Any differentiable parameter-free function as a stage, its derivative by forward-mode differentiation."""

    function: Callable[[Tensor], Tensor]

    def apply(self, a: Tensor) -> Tensor:
        """The function."""
        return self.function(a)

    def lift(self, a: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The function and its Jacobian-vector product."""
        value, tangent, *_ = torch.func.jvp(self.function, (a,), (t,))
        return value, tangent


@dataclass(frozen=True)
class Relu:
    """max(0, a)."""

    def apply(self, a: Tensor) -> Tensor:
        """The activation."""
        return a.relu()

    def lift(self, a: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The activation and `t` where it is active."""
        return a.relu(), where_positive(t, a)


class _Select(torch.autograd.Function):
    """One entry of each 2 x 2 window, linear in `t` (B, C, 2h, 2w).

    `upper` (B, C, h, 2w) is 1 where the upper row is taken, `left` (B, C, h, w) where then the left column is, else 0.
    """

    @staticmethod
    def forward(ctx: Any, t: Tensor, upper: Tensor, left: Tensor) -> Tensor:
        lower, right = 1 - upper, 1 - left
        ctx.save_for_backward(upper, lower, left, right)
        rows = t[:, :, 0::2] * upper + t[:, :, 1::2] * lower
        return rows[..., 0::2] * left + rows[..., 1::2] * right

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        upper, lower, left, right = ctx.saved_tensors
        rows = gradient.new_empty(upper.shape)
        torch.mul(gradient, left, out=rows[..., 0::2])
        torch.mul(gradient, right, out=rows[..., 1::2])
        whole = gradient.new_empty(*upper.shape[:2], 2 * upper.shape[2], upper.shape[3])
        torch.mul(rows, upper, out=whole[:, :, 0::2])
        torch.mul(rows, lower, out=whole[:, :, 1::2])
        return whole, None, None


@dataclass(frozen=True)
class MaxPool2:
    """Max-pooling over 2 x 2 windows; height and width must be even.

    Comparing whole rows, then columns, is several times as fast on a CPU as torch's pooling with indices.
    """

    def apply(self, a: Tensor) -> Tensor:
        """The pooling of a (B, C, H, W)."""
        return self._select(a, *self._winners(a))

    def lift(self, a: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The pooling and the tangent at each window's maximum."""
        winners = self._winners(a)
        return self._select(a, *winners), self._select(t, *winners)

    def _winners(self, a: Tensor) -> tuple[Tensor, Tensor]:
        a = a.detach()
        top, bottom = a[:, :, 0::2], a[:, :, 1::2]
        rows = torch.maximum(top, bottom)
        left = rows[..., 0::2] - rows[..., 1::2]
        return where_positive(torch.ones_like(rows), top - bottom), where_positive(torch.ones_like(left), left)

    def _select(self, t: Tensor, upper: Tensor, left: Tensor) -> Tensor:
        selected: Tensor = _Select.apply(t, upper, left)
        return selected


@dataclass(frozen=True)
class Flatten:
    """All axes but the first in one."""

    def apply(self, a: Tensor) -> Tensor:
        """(B, ...) to (B, features)."""
        return a.flatten(1)

    def lift(self, a: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Both streams flattened."""
        return a.flatten(1), t.flatten(1)
