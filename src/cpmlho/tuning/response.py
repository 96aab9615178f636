"""Layers with a response to hyperparameters, and the networks made of them.

A layer's output at input a and displacement d (one row an example) is `W a + b + (H_w d) * (R a) + (H_b d) * r`
(eqs. 3-4). Networks are plain descriptions; their parameters are passed in, so that each step says which of them
it differentiates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cpmlho.tuning.regularisers import Regularisers


class General(NamedTuple):
    """A layer's general parameters: W (out, in) or (out, in, k, k), the paper's w_e, and b (out,)."""

    W: Tensor
    b: Tensor


class Response(NamedTuple):
    """A layer's response parameters: R like W (w_h2), r like b, H (2 out, n) (w_h1)."""

    R: Tensor
    r: Tensor
    H: Tensor


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


def respond(layer: Layer, a: Tensor, response: Response, d: Tensor) -> Tensor:
    """The response of a layer's output to the displacement: `(H_w d) * (R a) + (H_b d) * r`, d (B, n)."""
    scale, shift = (d @ response.H.T).to(a.dtype).chunk(2, dim=1)  # (B, out) each
    ra = layer.apply(a, response.R)
    trailing = (1,) * (ra.dim() - 2)
    shift = shift * response.r
    return (ra * scale.reshape(*scale.shape, *trailing)).add_(shift.view(*shift.shape, *trailing))


@dataclass(frozen=True)
class ResponseNetwork:
    """A sequence of layers, dropout places and glue; parameters are given to each call, a pair a layer."""

    stages: tuple[Layer | Dropout | Glue, ...]

    @property
    def layers(self) -> list[Layer]:
        """The stages that have parameters."""
        return [stage for stage in self.stages if isinstance(stage, Layer)]

    def initialise(self, n: int, generator: torch.Generator) -> tuple[list[General], list[Response]]:
        """Fresh parameters for n hyperparameters, as PyTorch's own layers start, in float32; H is zero.

        All general parameters are drawn before the response's, so that methods without a response start alike.
        """

        def uniform(shape: tuple[int, ...], fan_in: int) -> Tensor:
            # Kaiming uniform with a = sqrt(5) is uniform in +-1 / sqrt(fan_in), as the biases are.
            bound = 1 / math.sqrt(fan_in)
            return torch.empty(shape).uniform_(-bound, bound, generator=generator)

        def pair(layer: Layer) -> tuple[Tensor, Tensor]:
            fan_in = math.prod(layer.shape[1:])
            return uniform(layer.shape, fan_in), uniform((layer.outputs,), fan_in)

        general = [General(*pair(layer)) for layer in self.layers]
        response = [Response(*pair(layer), torch.zeros(2 * layer.outputs, n)) for layer in self.layers]
        return general, response

    def forward(
        self,
        a: Tensor,
        general: Sequence[General],
        regularisers: Regularisers | None = None,
        response: Sequence[Response] | None = None,
        d: Tensor | None = None,
    ) -> Tensor:
        """The network's output (B, outputs) at the displacement d (B, n); without one, the response is not computed.

        Args:
            a: input, (B, C, H, W).
            general: general parameters, one a layer, in the dtype of `a`.
            regularisers: dropout to act; None for none.
            response: response parameters, one a layer; needed with `d`.
            d: displacement of each example.
        """
        index = 0
        for stage in self.stages:
            if isinstance(stage, Layer):
                out = stage.apply(a, *general[index])
                if response is not None and d is not None:
                    out = out + respond(stage, a, response[index], d)
                a, index = out, index + 1
            elif isinstance(stage, Dropout):
                mask = regularisers.mask(stage.name, a) if regularisers else None
                a = a if mask is None else a * mask
            else:
                a = stage.apply(a)
        return a

    def linearised(
        self,
        a: Tensor,
        general: Sequence[General],
        regularisers: Regularisers | None,
        response: Sequence[Response],
        d: Tensor,
    ) -> Tensor:
        """f(x; W) + J (response to d): the output linearised in the displaced weights, as Delta-STN has it.

        Value and tangent go through the network side by side; arguments as in `forward`. Differentiable with
        respect to `response` alone: the value stream is computed without a graph.
        """
        t: Tensor | None = None  # the input does not move
        index = 0
        for stage in self.stages:
            if isinstance(stage, Layer):
                moved = respond(stage, a, response[index], d)
                if t is not None:
                    moved = moved + stage.apply(t, general[index].W.detach())
                with torch.no_grad():
                    a = stage.apply(a, *general[index])
                t, index = moved, index + 1
            elif isinstance(stage, Dropout):
                mask = regularisers.mask(stage.name, a) if regularisers else None
                if mask is not None:
                    a, t = a * mask, None if t is None else t * mask
            elif t is None:
                a = stage.apply(a)
            else:
                a, t = stage.lift(a, t)
        return a if t is None else a + t
