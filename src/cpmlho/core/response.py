"""Networks whose layers respond to hyperparameters.

A layer's output at input a and displacement d (one row an example) is `W a + b + (H_w d) * (R a) + (H_b d) * r`
(eqs. 3-4). Networks are plain descriptions; their parameters are passed in, so that each step says which of them
it differentiates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cpmlho.core.layers import Dropout, Glue, Layer, Residual
from cpmlho.core.precision import operand
from cpmlho.core.regularisers import Regularisers


class General(NamedTuple):
    """A layer's general parameters: W (out, in) or (out, in, k, k), the paper's w_e, and b (out,)."""

    W: Tensor
    b: Tensor

    def to(self, dtype: torch.dtype) -> General:
        """Copies for products in `dtype`, or the same tensors where it is theirs."""
        return General(operand(self.W, dtype), operand(self.b, dtype))


class Response(NamedTuple):
    """A layer's response parameters: R like W (w_h2), r like b, H (2 out, n) (w_h1)."""

    R: Tensor
    r: Tensor
    H: Tensor

    def to(self, dtype: torch.dtype) -> Response:
        """Copies for products in `dtype`; H, small and accumulated, stays float32."""
        return Response(operand(self.R, dtype), self.r.to(dtype), self.H)


class Displacement(NamedTuple):
    """A displacement d (B, n) of the hyperparameters, one row an example, and the response of each layer to it."""

    response: Sequence[Response]
    d: Tensor


def respond(layer: Layer, a: Tensor, response: Response, d: Tensor) -> Tensor:
    """The response of a layer's output to the displacement: `(H_w d) * (R a) + (H_b d) * r`, d (B, n)."""
    scale, shift = (d @ response.H.T).to(a.dtype).chunk(2, dim=1)  # (B, out) each
    ra = layer.apply(a, response.R)
    trailing = (1,) * (ra.dim() - 2)
    shift = shift * response.r
    return torch.addcmul(shift.view(*shift.shape, *trailing), ra, scale.reshape(*scale.shape, *trailing))


def moved(response: Response, d: Tensor) -> General:
    """What the displacement d (n,) adds to a layer's W and b: `(H_w d) R` and `(H_b d) * r`."""
    scale, shift = (response.H @ d).chunk(2)
    return General(scale.view(-1, *(1,) * (response.R.dim() - 1)) * response.R, shift * response.r)


def displaced(general: Sequence[General], response: Sequence[Response], d: Tensor) -> list[General]:
    """The weights w_h of a network at the displacement d (n,)."""
    added = (moved(each, d) for each in response)
    return [General(own.W + more.W, own.b + more.b) for own, more in zip(general, added, strict=True)]


Stages = Sequence[Layer | Dropout | Glue | Residual]


def layers_of(stages: Stages) -> Iterator[Layer]:
    """The stages that have parameters, in the order in which they act."""
    for stage in stages:
        if isinstance(stage, Residual):
            yield from layers_of(stage.stages)
        elif isinstance(stage, Layer):
            yield stage


@dataclass(frozen=True)
class ResponseNetwork:
    """A sequence of layers, dropout places and glue; parameters are given to each call, a pair a layer."""

    stages: tuple[Layer | Dropout | Glue | Residual, ...]

    @property
    def layers(self) -> list[Layer]:
        """The stages that have parameters."""
        return list(layers_of(self.stages))

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
        displacement: Displacement | None = None,
    ) -> Tensor:
        """The network's output (B, outputs) at a displacement; without one, the response is not computed.

        Args:
            a: input, (B, C, H, W).
            general: general parameters, one a layer, in the dtype of `a`.
            regularisers: dropout to act; None for none.
            displacement: response parameters and the displacement of each example.
        """
        indices = iter(range(len(general)))

        def through(stages: Stages, a: Tensor) -> Tensor:
            for stage in stages:
                if isinstance(stage, Residual):
                    a = a + through(stage.stages, a)
                elif isinstance(stage, Layer):
                    index = next(indices)
                    out = stage.apply(a, *general[index])
                    if displacement is not None:
                        out = out + respond(stage, a, displacement.response[index], displacement.d)
                    a = out
                elif isinstance(stage, Dropout):
                    mask = regularisers.mask(stage.name, a) if regularisers else None
                    a = a if mask is None else a * mask
                else:
                    a = stage.apply(a)
            return a

        return through(self.stages, a)

    def linearised(
        self,
        a: Tensor,
        general: Sequence[General],
        regularisers: Regularisers | None,
        displacement: Displacement,
    ) -> Tensor:
        """f(x; W) + J (response to d): the output linearised in the displaced weights, as Delta-STN has it.

        Value and tangent go through the network side by side; arguments as in `forward`. Differentiable with
        respect to the response alone: the value stream is computed without a graph.
        """
        indices = iter(range(len(general)))

        def through(stages: Stages, a: Tensor, t: Tensor | None) -> tuple[Tensor, Tensor | None]:
            for stage in stages:
                if isinstance(stage, Residual):
                    added, moved = through(stage.stages, a, t)
                    a, t = a + added, moved if t is None or moved is None else t + moved
                elif isinstance(stage, Layer):
                    index = next(indices)
                    moved = respond(stage, a, displacement.response[index], displacement.d)
                    if t is not None:
                        moved = moved + stage.apply(t, general[index].W.detach())
                    with torch.no_grad():
                        a = stage.apply(a, *general[index])
                    t = moved
                elif isinstance(stage, Dropout):
                    mask = regularisers.mask(stage.name, a) if regularisers else None
                    if mask is not None:
                        a, t = a * mask, None if t is None else t * mask
                elif t is None:
                    a = stage.apply(a)
                else:
                    a, t = stage.lift(a, t)
            return a, t

        a, t = through(self.stages, a, None)  # the input does not move
        return a if t is None else a + t
