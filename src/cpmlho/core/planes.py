"""Cutting planes that hold the response weights w_h(lambda) to the general weights w_e (eqs. 10-14).

With w_h = (H_w lambda) R, row by row, and g = |w_e - w_h|, a plane taken at iterate k is
phi_k(w_e, w_h) = g_k + <dg/dw_e, w_e - w_e^k> + <dg/dw_h, w_h - w_h^k> - eps^2.
As g depends on v = w_e - w_h alone, its gradient with respect to w_h is minus that with respect to w_e, and a plane
is phi_k = <n_k, v> + c_k with the normal n_k = dg/dv.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cpmlho.core.events import PlaneState
from cpmlho.core.options import CPMLHO
from cpmlho.core.response import General, Response
from cpmlho.core.space import Space

Weights = Sequence[Tensor]  # one tensor a layer


def distance(v: Weights, kind: str) -> tuple[Tensor, list[Tensor]]:
    """g and a (sub)gradient dg/dv, over all layers together (R2).

    Args:
        v: w_e - w_h.
        kind: `l2`, the Euclidean norm; `l1`, the sum of magnitudes; `mean_l1`, their mean.
    """
    if kind == "l2":
        g = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(v))))
        scale = torch.where(g > 0, 1 / g, torch.zeros_like(g))  # 0 is a subgradient at the kink
        return g, [x * scale for x in v]
    size = sum(x.numel() for x in v) if kind == "mean_l1" else 1
    return torch.stack([x.abs().sum() for x in v]).sum() / size, [x.sign() / size for x in v]


def response_scales(response: Sequence[Response], at: Tensor) -> list[Tensor]:
    """H_w lambda of each layer, shaped to scale the rows of R; `at` (n,) is lambda."""
    return [(layer.H[: len(layer.R)] @ at).view(-1, *(1,) * (layer.R.dim() - 1)) for layer in response]


def gap(general: Sequence[General], response: Sequence[Response], at: Tensor) -> list[Tensor]:
    """v = w_e - w_h(lambda), layer by layer."""
    scales = response_scales(response, at)
    return [torch.addcmul(e.W, h.R, scale, value=-1) for e, h, scale in zip(general, response, scales, strict=True)]


class CuttingPlanes:
    """The active planes with their multipliers mu, and the force that they exert on the response weights."""

    def __init__(self, options: CPMLHO, device: torch.device) -> None:
        self._options = options
        self._taken = 0
        self._ids: list[int] = []
        self.mu = torch.empty(0, device=device)
        self._offsets = torch.empty(0, device=device)
        self._normals: list[Tensor] = []  # (k, out, ...) a layer
        self._force: list[Tensor] = []  # sum_k mu_k n_k, the negative gradient with respect to w_h

    def __len__(self) -> int:
        return len(self._ids)

    def state(self) -> dict[str, Any]:
        """All that the planes remember."""
        names = ("_taken", "_ids", "mu", "_offsets", "_normals")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore from `state`."""
        for name, value in state.items():
            setattr(self, name, value)
        self._combine()

    def due(self, epoch: int) -> bool:
        """Whether a plane is taken after this epoch (R5)."""
        return epoch % self._options.cut_every == 0

    def coordinates(self, space: Space, raw: Tensor) -> Tensor:
        """The lambda (n,) at which w_h is taken: unconstrained, or as values (R3)."""
        return raw if self._options.wh_at == "raw" else space.values(raw)

    def add(self, v: Weights) -> None:
        """Take a plane at the gap v; the oldest goes beyond `max_planes`, and so do those whose mu is 0 (R6)."""
        alive = (self.mu > 0).nonzero().flatten()
        alive = alive[max(0, len(alive) - self._options.max_planes + 1) :]
        g, normal = distance(v, self._options.g)
        level = torch.stack([torch.sum(n * x) for n, x in zip(normal, v, strict=True)]).sum()
        old = self._normals or [n.new_empty(0, *n.shape) for n in normal]
        self._normals = [torch.cat([before[alive], new[None]]) for before, new in zip(old, normal, strict=True)]
        self._offsets = torch.cat([self._offsets[alive], (g - level - self._options.eps_sq)[None]])
        self.mu = torch.cat([self.mu[alive], g.new_tensor([self._options.mu_init])])
        self._taken += 1
        self._ids = [*(self._ids[i] for i in alive.tolist()), self._taken]
        self._combine()

    def values(self, v: Weights) -> Tensor:
        """phi of each plane, (k,), at the gap v."""
        products = [torch.mv(n.flatten(1), x.flatten()) for n, x in zip(self._normals, v, strict=True)]
        return torch.stack(products).sum(0) + self._offsets

    def ascend(self, v: Weights) -> None:
        """Projected dual ascent, mu <- max(0, mu + dual_step phi) (R6); a mu that has fallen to 0 stays there."""
        if self._options.multiplier == "fixed" or not self._ids:
            return
        raised = (self.mu + self._options.dual_step * self.values(v)).clamp_(min=0)
        self.mu = torch.where(self.mu > 0, raised, 0)
        self._combine()

    def gradient(self, response: Sequence[Response], at: Tensor) -> list[Response]:
        """Gradient of sum_k mu_k phi_k with respect to R, r and H, layer by layer, at lambda `at` (n,)."""
        result = []
        for layer, scale, force in zip(response, response_scales(response, at), self._force, strict=True):
            row_force = (force * layer.R).flatten(1).sum(1)
            hyper_map = torch.zeros_like(layer.H)
            hyper_map[: len(layer.R)] = -row_force.unsqueeze(1) * at
            result.append(Response(-scale * force, torch.zeros_like(layer.r), hyper_map))
        return result

    def states(self, epoch: int, step: int, v: Weights, share: float) -> list[PlaneState]:
        """Each active plane; `share` is the norm of the planes' gradient over that of the loss's."""
        g = distance(v, self._options.g)[0].item()
        columns = zip(self._ids, self.values(v).tolist(), self.mu.tolist(), strict=True)
        return [PlaneState(epoch, step, i, g, phi, mu, share) for i, phi, mu in columns]

    def _combine(self) -> None:
        self._force = [torch.tensordot(self.mu, normal, dims=1) for normal in self._normals]
