"""The stages that networks are made of: layers with weights, places of dropout, and parameter-free glue.

Glue goes through the linearised pass by its derivative along a tangent t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cpmlho.core.precision import multiply


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
        return multiply(F.linear, a, weight, bias)


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
        return multiply(partial(F.conv2d, padding=self.padding), a, weight, bias)


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


@dataclass(frozen=True)
class ChannelsLast:
    """The images with each pixel's channels side by side in memory, where a CPU pools several times as fast."""

    def apply(self, a: Tensor) -> Tensor:
        """The same (B, C, H, W) in another order of strides; a copy, as with one channel torch would see no need."""
        return a.clone(memory_format=torch.channels_last)

    def lift(self, a: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Both streams reordered."""
        return self.apply(a), self.apply(t)


class _AtWinners(torch.autograd.Function):
    """The entries of t (B, C, H, W) at each window's winner; its transpose is the pooling's own backward kernel."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, winners: Tensor) -> Tensor:
        ctx.save_for_backward(t, winners)
        pixels, places = (x.movedim(1, -1).flatten(1, 2) for x in (t, winners))  # (B, H W, C), as channels-last lies
        return pixels.gather(1, places).view(*winners.shape[:1], *winners.shape[2:], -1).movedim(-1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        t, winners = ctx.saved_tensors
        backward = torch.ops.aten.max_pool2d_with_indices_backward
        return backward(gradient, t, [2, 2], [2, 2], [0, 0], [1, 1], False, winners), None


@dataclass(frozen=True)
class MaxPool2:
    """Max-pooling over 2 x 2 windows; height and width must be even."""

    def apply(self, a: Tensor) -> Tensor:
        """The pooling of a (B, C, H, W)."""
        return F.max_pool2d(a, 2)

    def lift(self, a: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The pooling and the tangent at each window's maximum."""
        value, winners = F.max_pool2d(a, 2, return_indices=True)
        return value, _AtWinners.apply(t, winners)


@dataclass(frozen=True)
class Residual:
    """Stages that keep the shape, and whose output is added to their input (He et al. 2016)."""

    stages: tuple[Layer | Dropout | Glue | Residual, ...]


@dataclass(frozen=True)
class Flatten:
    """All axes but the first in one."""

    def apply(self, a: Tensor) -> Tensor:
        """(B, ...) to (B, features)."""
        return a.flatten(1)

    def lift(self, a: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Both streams flattened."""
        return a.flatten(1), t.flatten(1)
