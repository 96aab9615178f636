"""Regularisation whose strength differs from example to example: dropout as a module, augmentation as functions.

All act on a whole batch at once. Nothing is differentiated with respect to a strength: the hypergradient goes through
the response of the weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpmlho.core import regularisers
from cpmlho.core.spaces import Values


def per_row(t: Tensor, rows: int, where: str) -> Tensor:
    """t (B, ...), one row an example, as (rows, ...) for a layer that works on several rows of each example in turn.

    Raises:
        ValueError: the rows cannot be told to belong to the examples; the message names `where`.
    """
    if rows % len(t):
        raise ValueError(
            f"{where} works on {rows} rows of a batch of {len(t)} examples: the examples must be the first axis of its "
            "input (batch_first=True)"
        )
    return t if rows == len(t) else t.repeat_interleave(rows // len(t), 0)


class Dropout(nn.Module):
    """Dropout whose rate is the hyperparameter `name`, one rate an example.

    Like `nn.Dropout` it acts in training mode alone. Outside `Tuner.step` it drops at the present rate.

    Args:
        name: of the hyperparameter in the space.
        channels: whether whole channels are dropped, as `nn.Dropout2d` does, and not single numbers.
        fixed: the rate of a module that no tuner tunes; None: such a module refuses to train.
    """

    def __init__(self, name: str, *, channels: bool = False, fixed: float | None = None) -> None:
        super().__init__()
        self.name, self.channels, self.fixed = name, channels, fixed
        self._values: Values | None = None

    def acts_at(self, values: Values | None) -> Values | None:
        """Take the rate of each example from `values`, None for no tuner's; what they were taken from before."""
        before, self._values = self._values, values
        return before

    def forward(self, a: Tensor) -> Tensor:
        """Drop from a (B, ...) what the rates say.

        Raises:
            RuntimeError: it trains, and neither a tuner nor `fixed` gives a rate.
        """
        if not self.training:
            return a
        if self._values is None or self.name not in self._values:
            if self.fixed is None:
                raise RuntimeError(
                    f"cpmlho.Dropout({self.name!r}) has no rate: put {self.name!r} into the space of a Tuner, "
                    "or give a fixed rate"
                )
            return torch.feature_dropout(a, self.fixed, True) if self.channels else F.dropout(a, self.fixed)
        rates, generator = self._values[self.name], self._values.generator
        rates = per_row(rates, len(a), f"cpmlho.Dropout({self.name!r})")
        if self.channels:
            return a * regularisers.dropout_mask(rates, a, generator)
        return a * regularisers.dropout_mask(rates, a.flatten(1), generator).view_as(a)

    def extra_repr(self) -> str:
        """The arguments, as they were given."""
        return f"{self.name!r}" + ", channels=True" * self.channels


def cutout(
    images: Tensor, length: Tensor, holes: Tensor, *, max_holes: int = 8, generator: torch.Generator | None = None
) -> Tensor:
    """Images (B, C, H, W) with square holes set to 0 at random places (DeVries and Taylor 2017).

    Args:
        images: of any number of channels.
        length: (B,) side of the holes in pixels, floored.
        holes: (B,) number of holes, floored.
        max_holes: an upper bound of `holes`.
        generator: `h.generator`, or None for torch's global one.
    """
    if generator is None:
        generator = _global(images.device)
    return regularisers.cutout(images, length, holes, max_holes, generator)


def shift(images: Tensor, distance: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Images (B, C, H, W), each moved by whole pixels down and across, zeros coming in from the edge.

    Args:
        images: of any number of channels.
        distance: (B,) the largest distance in pixels along an axis; each is uniform in [-distance, distance], rounded.
        generator: `h.generator`, or None for torch's global one.
    """
    batch, _, height, width = images.shape
    unit = torch.rand(2, batch, generator=generator, device=images.device) * 2 - 1
    down, across = (unit * distance).round().long()
    rows, row_inside = _moved(height, down, images.device)
    columns, column_inside = _moved(width, across, images.device)
    result = images[torch.arange(batch, device=images.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    inside = row_inside[:, :, None] & column_inside[:, None, :]  # (B, H, W)
    return (result * inside.unsqueeze(-1)).permute(0, 3, 1, 2)


def noise(a: Tensor, scale: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """a (B, ...) and normal noise of standard deviation `scale` (B,).

    Args:
        a: numbers of any shape.
        scale: one an example.
        generator: `h.generator`, or None for torch's global one.
    """
    drawn = torch.randn(a.shape, generator=generator, device=a.device, dtype=a.dtype)
    return torch.addcmul(a, drawn, scale.to(a.dtype).view(-1, *(1,) * (a.dim() - 1)))


def _moved(size: int, by: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each place along an axis: where its pixel comes from, and whether that lies inside; (B, size) each."""
    source = torch.arange(size, device=device) - by[:, None]
    return source.clamp(0, size - 1), (source >= 0) & (source < size)


def _global(device: torch.device) -> torch.Generator:
    """A generator that goes on from torch's global one."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, ()).item()))
