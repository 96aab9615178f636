"""Cutting planes that hold the response weights w_h(lambda) to the general weights w_e (eqs. 10-14).

With w_h = (H_w c) R, row by row, at coordinates c (R3), and g = |w_e - w_h|, a plane taken at iterate k is
phi_k(w_e, w_h) = g_k + <dg/dw_e, w_e - w_e^k> + <dg/dw_h, w_h - w_h^k> - eps^2.
As g depends on v = w_e - w_h alone, its gradient with respect to w_h is minus that with respect to w_e, and a plane
is phi_k = <n_k, v> + c_k with the normal n_k = dg/dv.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cpmlho.core.options import CPMLHO
from cpmlho.core.response import General, Response
from cpmlho.core.spaces import Space

Weights = Sequence[Tensor]  # one tensor for each layer


class PlaneState(NamedTuple):
    """An active cutting plane at the end of an epoch."""

    epoch: int
    step: int
    plane: int  # its number, from 1
    g: float  # |w_e - w_h|, the same for all planes
    phi: float
    mu: float
    gradient_share: float  # norm of all planes' gradient over that of the loss's, at the last response step
    layer: int  # from 1; 0 for a plane on all layers


FORGOTTEN = 1e-10  # a multiplier of ADBO below it is gone at the next cut


def distance(v: Weights, kind: str) -> tuple[Tensor, list[Tensor]]:
    """g and a (sub)gradient dg/dv, over these layers together (R2).

    Args:
        v: w_e - w_h.
        kind: `l2`, the Euclidean norm; `squared`, its square; `l1`, the sum of magnitudes; `mean_l1`, their mean.
    """
    if kind in ("l2", "squared"):
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(v))))
        if kind == "squared":
            return norm.square(), [2 * x for x in v]
        scale = torch.where(norm > 0, 1 / norm, torch.zeros_like(norm))  # 0 is a subgradient at the kink
        return norm, [x * scale for x in v]
    size = sum(x.numel() for x in v) if kind == "mean_l1" else 1
    return torch.stack([x.abs().sum() for x in v]).sum() / size, [x.sign() / size for x in v]


def rows(layer: Response, scale: Tensor) -> Tensor:
    """A number for each row of R, shaped to scale them."""
    return scale.view(-1, *(1,) * (layer.R.dim() - 1))


def response_scales(response: Sequence[Response], coordinates: Tensor | None) -> list[Tensor]:
    """What R's rows are multiplied by to give w_h, (out,) a layer: H_w c, or 1 where R itself is held (R3)."""
    if coordinates is None:
        return [layer.r.new_ones(len(layer.R)) for layer in response]
    return [layer.H[: len(layer.R)] @ coordinates for layer in response]


def gap(general: Sequence[General], response: Sequence[Response], coordinates: Tensor | None) -> list[Tensor]:
    """v = w_e - w_h, layer by layer; `coordinates` (n,) as in `response_scales`."""
    return _difference(general, response, response_scales(response, coordinates))


def _difference(general: Sequence[General], response: Sequence[Response], scales: Weights) -> list[Tensor]:
    parts = zip(general, response, scales, strict=True)
    return [torch.addcmul(e.W, h.R, rows(h, scale), value=-1) for e, h, scale in parts]


class Pull(NamedTuple):
    """What the planes pull a layer's w_h with: `mu` times `direction`, and the sums (out,) over its rows times R's."""

    direction: Tensor
    products: Tensor
    mu: Tensor


def _row_products(a: Tensor, b: Tensor) -> Tensor:
    """Products of the rows of two tensors of one shape, (out,)."""
    products: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return products


class PlaneSet:
    """The planes on some of the layers, with their multipliers mu.

    Attributes:
        mu: (k,), oldest first.
        numbers: (k,), of the planes, from 1.
    """

    def __init__(self, options: CPMLHO, device: torch.device) -> None:
        self._options = options
        self._steps = 0  # of the multipliers
        self._taken = 0  # planes
        self.numbers = torch.empty(0, device=device, dtype=torch.int64)
        self.mu = torch.empty(0, device=device)
        self._alive = torch.empty(0, device=device)  # 1, or 0 where mu has come to stay at 0
        self._offsets = torch.empty(0, device=device)
        self._normals: list[Tensor] = []  # (k, out, ...) a layer

    def __len__(self) -> int:
        return len(self.mu)

    def state_dict(self) -> dict[str, Any]:
        """All that the planes remember."""
        names = ("_steps", "_taken", "numbers", "mu", "_alive", "_offsets", "_normals")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        for name, value in state.items():
            setattr(self, name, value)

    def add(self, v: Weights) -> None:
        """Take a plane at the gap v; beyond `max_planes` those go whose mu stays at 0, then the oldest (R6)."""
        options, adbo = self._options, self._options.multiplier == "adbo"
        alive = (self.mu > FORGOTTEN) * self._alive if adbo else self._alive
        # The dead first, each oldest first; known to the device alone, so that nothing waits for it.
        kept = torch.argsort(alive, stable=True)[max(0, len(self) - options.max_planes + 1) :].sort().values
        g, normal = distance(v, options.g)
        level = torch.stack([torch.sum(n * x) for n, x in zip(normal, v, strict=True)]).sum()
        old = self._normals or [n.new_empty(0, *n.shape) for n in normal]
        self._normals = [torch.cat([o[kept], n[None]]) for o, n in zip(old, normal, strict=True)]
        self._offsets = torch.cat([self._offsets[kept], (g - level - options.eps_sq)[None]])
        start = g.new_full((1,), 0.0 if adbo else options.mu_init)
        self.mu = torch.cat([(self.mu * alive)[kept], start])
        self._alive = torch.cat([alive[kept], torch.ones_like(start)])
        self._taken += 1
        self.numbers = torch.cat([self.numbers[kept], self.numbers.new_full((1,), self._taken)])

    def values(self, v: Weights) -> Tensor:
        """phi of each plane, (k,), at the gap v."""
        products = [torch.mv(n.flatten(1), x.flatten()) for n, x in zip(self._normals, v, strict=True)]
        return torch.stack(products).sum(0) + self._offsets

    def columns(self, v: Weights) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers, phi at the gap v, and mu of the planes whose mu may still rise."""
        alive = self._alive > 0
        return self.numbers[alive], self.values(v)[alive], self.mu[alive]

    def ascend(self, v: Weights) -> None:
        """The multipliers' step (R6)."""
        options = self._options
        if options.multiplier == "fixed" or not len(self):
            return
        self._steps += 1
        # ADBO's damping: c mu with dual_step c = t^(-1/4), t the number of the step (Jiao et al. 2023).
        kept = 1 - self._steps**-0.25 if options.multiplier == "adbo" else 1.0
        self.mu = (kept * self.mu + options.dual_step * self.values(v)).clamp_(min=0) * self._alive
        if options.multiplier == "dual_ascent":
            self._alive = self._alive * (self.mu > 0)

    def pulls(self, general: Sequence[General], response: Sequence[Response], scales: Weights) -> list[Pull]:
        """The force sum_k mu_k n_k of the planes that pull, the negative gradient with respect to w_h, a layer each.

        Args:
            general: general parameters.
            response: response parameters.
            scales: as `response_scales`.
        """
        if len(self) == 1 and self._options.force == "violated":  # no pass over the weights but two products
            normals = [normal[0] for normal in self._normals]
            products = [_row_products(n, layer.R) for n, layer in zip(normals, response, strict=True)]
            along = zip(normals, general, products, scales, strict=True)
            level = torch.stack([torch.sum(_row_products(n, e.W)) - p @ s for n, e, p, s in along]).sum()
            mu = self.mu[0] * (level + self._offsets[0] > 0)
            return [Pull(n, p, mu) for n, p in zip(normals, products, strict=True)]
        mu = self.mu
        if self._options.force == "violated":
            mu = mu * (self.values(_difference(general, response, scales)) > 0)
        forces = [torch.tensordot(mu, normal, dims=1) for normal in self._normals]
        one = self.mu.new_ones(())
        return [Pull(f, (f * layer.R).flatten(1).sum(1), one) for f, layer in zip(forces, response, strict=True)]


class CuttingPlanes:
    """All planes, one set for all layers or one for each (R2), and their gradient with respect to the response."""

    def __init__(self, options: CPMLHO, layers: int, device: torch.device) -> None:
        self._options = options
        self._groups = [slice(i, i + 1) for i in range(layers)] if options.per_layer else [slice(layers)]
        self.sets = [PlaneSet(options, device) for _ in self._groups]

    def __len__(self) -> int:
        return len(self.sets[0])

    def state_dict(self) -> list[dict[str, Any]]:
        """All that the planes remember."""
        return [each.state_dict() for each in self.sets]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Continue from `state_dict`."""
        for each, own in zip(self.sets, state, strict=True):
            each.load_state_dict(own)

    def coordinates(self, space: Space, lam: Tensor, delta: Tensor) -> Tensor | None:
        """The coordinates (n,) at which w_h is taken; None where R itself is held (R3).

        Args:
            space: the hyperparameters.
            lam: lambda (n,).
            delta: the displacement (n,) of the last response step, averaged over the batch.
        """
        if self._options.constraint == "response_weight":
            return None
        if self._options.constraint == "displaced":
            return delta
        return lam if self._options.constraint == "raw" else space.value(lam)

    def due(self, step: int, iterations: int) -> bool:
        """Whether a plane is taken after so many training iterations, of which an epoch has `iterations` (R5)."""
        return step % (self._options.cut_steps or self._options.cut_every * iterations) == 0

    def add(self, v: Weights) -> None:
        """Take a plane of each set at the gap v of all layers."""
        for group, each in zip(self._groups, self.sets, strict=True):
            each.add(v[group])

    def ascend(self, v: Weights) -> None:
        """The multipliers' step."""
        for group, each in zip(self._groups, self.sets, strict=True):
            each.ascend(v[group])

    def constrained(
        self,
        gradients: Sequence[Tensor | None],
        general: Sequence[General],
        response: Sequence[Response],
        coordinates: Tensor | None,
    ) -> list[Tensor]:
        """The gradients of R, r and H, layer by layer, plus those of sum_k mu_k phi_k for planes that pull (eq. 12).

        Args:
            gradients: of the loss; None for zero.
            general: general parameters.
            response: response parameters.
            coordinates: (n,), or None where R itself is held.
        """
        scales, pulls, result = response_scales(response, coordinates), list[Pull](), list[Tensor]()
        for group, each in zip(self._groups, self.sets, strict=True):
            pulls += each.pulls(general[group], response[group], scales[group])
        wholes = (torch.zeros_like(p) if g is None else g for g, p in zip(gradients, _flat(response), strict=True))
        for layer, scale, (direction, products, mu) in zip(response, scales, pulls, strict=True):
            R, r, H = next(wholes), next(wholes), next(wholes)
            if coordinates is not None:
                moved = -(products * mu).unsqueeze(1) * coordinates
                H = torch.cat([H[: len(moved)] + moved, H[len(moved) :]])
            result += [torch.addcmul(R, direction, rows(layer, -scale * mu)), r, H]
        return result

    def states(self, epoch: int, step: int, v: Weights, share: float) -> list[PlaneState]:
        """Each plane whose mu may still rise; `share` is the norm of the planes' gradient over that of the loss's."""
        found = []
        for layer, (group, each) in enumerate(zip(self._groups, self.sets, strict=True), 1):
            g = distance(v[group], self._options.g)[0].item()
            named = layer if self._options.per_layer else 0
            columns = zip(*(column.tolist() for column in each.columns(v[group])), strict=True)
            found += [PlaneState(epoch, step, i, g, phi, mu, share, named) for i, phi, mu in columns]
        return found


def _flat(response: Sequence[Response]) -> list[Tensor]:
    return [parameter for layer in response for parameter in layer]
