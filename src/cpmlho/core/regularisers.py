"""Dropout and cutout whose strength differs from example to example, for a whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = 2**16


def dropout_mask(rates: Tensor, like: Tensor, generator: torch.Generator) -> Tensor:
    """Masks of per-example dropout: 0 with probability `rates`, else 1 / (1 - rate).

    Args:
        rates: (B,), each in [0, 1); the nearest multiple of 2**-16 acts.
        like: the activation (B, features), or (B, channels, H, W) whose whole channels are dropped (R15).
        generator: where the uniform draws come from.

    Returns:
        (B, features) or (B, channels, 1, 1), in the activation's dtype.
    """
    shape = like.shape[:2] + (1,) * (like.dim() - 2)
    rates = rates.view(-1, *(1,) * (like.dim() - 1))
    dropped = (rates * LEVELS).round_()  # the levels, of all that 16 bits tell apart, at which a unit is dropped
    # level - dropped + 1 is at least 1 where the unit is kept, else at most 0; to clamp it is faster than to compare.
    keep = random_levels(shape, generator, like.device).sub_(dropped - 1).clamp_(0, 1)
    return keep.mul_(LEVELS / (LEVELS - dropped)).to(like.dtype)


def random_levels(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Uniform whole numbers from 0 to 65535 in float32, four out of each draw of 64 bits."""
    count = math.prod(shape)
    draws = torch.empty((count + 3) // 4, dtype=torch.int64, device=device).random_(-(2**63), None, generator=generator)
    return draws.view(torch.int16)[:count].view(shape).to(torch.float32).add_(LEVELS // 2)


def cutout(images: Tensor, length: Tensor, holes: Tensor, max_holes: int, generator: torch.Generator) -> Tensor:
    """Images with square holes set to zero.

    A hole of length l around (y, x) covers the rows from int(y - l / 2) up to, not including, int(y + l / 2) that lie
    in the image, and the columns likewise: l of them, as in the published code of Delta-STN (R17).

    Args:
        images: (B, C, H, W).
        length: (B,) side of the holes in pixels, floored here.
        holes: (B,) number of holes, floored here.
        max_holes: an upper bound of `holes`; so many centres are drawn for each image.
        generator: where the centres come from.
    """
    batch, _, height, width = images.shape
    side = length.floor().view(-1, 1, 1)
    after = side.div(2, rounding_mode="floor")
    before = side - after
    wanted = torch.arange(max_holes, device=images.device) < holes.floor().view(-1, 1)  # (B, K)

    def inside(size: int) -> Tensor:
        centre = torch.randint(size, (batch, max_holes, 1), generator=generator, device=images.device)
        offset = torch.arange(size, device=images.device) - centre
        return (offset >= -before) & (offset < after)  # (B, K, size)

    rows = (inside(height) & wanted.unsqueeze(-1)).to(images.dtype)
    columns = inside(width).to(images.dtype)
    covered = torch.bmm(rows.transpose(1, 2), columns)  # number of holes over each pixel
    return images * (covered == 0).unsqueeze(1)


@dataclass(frozen=True)
class Regularisers:
    """Dropout and cutout at hyperparameter values of shape (B, n), one row an example; `limits` bound them."""

    names: tuple[str, ...]
    values: Tensor
    limits: Mapping[str, float]
    generator: torch.Generator

    def augment(self, images: Tensor) -> Tensor:
        """Cutout, if it is among the hyperparameters."""
        if "cutout_holes" not in self.names:
            return images
        length, holes = self._of("cutout_length"), self._of("cutout_holes")
        return cutout(images, length, holes, int(self.limits["cutout_holes"]), self.generator)

    def mask(self, name: str, like: Tensor) -> Tensor | None:
        """The dropout mask of the hyperparameter `name`, or None if it is not tuned."""
        return dropout_mask(self._of(name), like, self.generator) if name in self.names else None

    def _of(self, name: str) -> Tensor:
        return self.values[:, self.names.index(name)]
