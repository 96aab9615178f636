"""Regularisation with a strength for each example: dropout as a module; augmentation and label smoothing as functions.

All act on a whole batch at once. No strength is differentiated: the hypergradient flows through the response of the
weights.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from cpmlho.core.spaces import Values

LEVELS = 2**16  # of a dropout rate: a draw of 16 bits decides whether a unit is kept


def per_row(t: Tensor, rows: int, where: str) -> Tensor:
    """t (B, ...) repeated to (rows, ...), for a layer that gets several rows of each example.

    Raises:
        ValueError: `rows` is no multiple of B; the message names `where`.
    """
    if rows % len(t):
        raise ValueError(
            f"{where} gets {rows} rows from a batch of {len(t)} examples: the examples must be the first axis of its "
            "input (batch_first=True)"
        )
    return t if rows == len(t) else t.repeat_interleave(rows // len(t), 0)


class Dropout(nn.Module):
    """Dropout whose rate is the hyperparameter `name`, one rate for each example.

    Like `nn.Dropout` it acts in training mode only. Outside `Tuner.step` it drops at the current rate.

    Args:
        name: of the hyperparameter in the space.
        channels: drop whole channels, as `nn.Dropout2d` does.
        fixed: the rate when no tuner tunes it; None: without a tuner the module refuses to train.
    """

    def __init__(self, name: str, *, channels: bool = False, fixed: float | None = None) -> None:
        super().__init__()
        self.name, self.channels, self.fixed = name, channels, fixed
        self._values: Values | None = None

    def use(self, values: Values | None) -> Values | None:
        """Take the rates from `values` from now on, or from `fixed` if None; returns the previous values."""
        before, self._values = self._values, values
        return before

    def forward(self, a: Tensor) -> Tensor:
        """Drop units, or channels, of a (B, ...).

        Raises:
            RuntimeError: in training mode, neither a tuner nor `fixed` gives a rate.
        """
        if not self.training:
            return a
        if self._values is None or self.name not in self._values:
            if self.fixed is None:
                raise RuntimeError(
                    f"cpmlho.Dropout({self.name!r}) has no rate: put {self.name!r} into the space of a Tuner, "
                    "or give a fixed rate"
                )
            if self.fixed == 0:
                return a
            return torch.feature_dropout(a, self.fixed, True) if self.channels else F.dropout(a, self.fixed)
        rates, generator = self._values[self.name], self._values.generator
        rates = per_row(rates, len(a), f"cpmlho.Dropout({self.name!r})")
        rows = a if self.channels else a.flatten(1)
        mask = dropout_mask(rates, rows, generator)
        return _masked(a, mask if self.channels else mask.view_as(a))

    def extra_repr(self) -> str:
        """The arguments, as they were given."""
        return f"{self.name!r}" + ", channels=True" * self.channels


def _masked(a: Tensor, mask: Tensor) -> Tensor:
    """a times a mask. In forward mode, torch would differentiate the product by a decomposition in Python."""
    value, tangent = forward_ad.unpack_dual(a)
    if tangent is None:
        return a * mask
    dual: Tensor = forward_ad.make_dual(value * mask, tangent * mask)
    return dual


def dropout_mask(rates: Tensor, like: Tensor, generator: torch.Generator) -> Tensor:
    """Masks of dropout: 0 with probability `rates`, else 1 / (1 - rate).

    Args:
        rates: (B,), each in [0, 1); rounded to multiples of 2**-16.
        like: the activation (B, features), or (B, channels, H, W), whose whole channels are dropped (R15).
        generator: of the uniform draws.

    Returns:
        (B, features) or (B, channels, 1, 1), in the activation's dtype.
    """
    shape = like.shape[:2] + (1,) * (like.dim() - 2)
    rates = rates.view(-1, *(1,) * (like.dim() - 1))
    dropped = (rates * LEVELS).round_()
    # level - dropped + 1 is at least 1 for a kept unit, else at most 0. Clamping is faster than comparing.
    keep = _random_levels(shape, generator, like.device).sub_(dropped - 1).clamp_(0, 1)
    return keep.mul_(LEVELS / (LEVELS - dropped)).to(like.dtype)


def _random_levels(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Uniform integers from 0 to 65535 as float32, four from each draw of 64 bits."""
    count = math.prod(shape)
    draws = torch.empty((count + 3) // 4, dtype=torch.int64, device=device).random_(-(2**63), None, generator=generator)
    return draws.view(torch.int16)[:count].view(shape).to(torch.float32).add_(LEVELS // 2)


def cutout(
    images: Tensor, length: Tensor, holes: Tensor, *, max_holes: int = 8, generator: torch.Generator | None = None
) -> Tensor:
    """Images with square holes set to 0 at random places (DeVries and Taylor 2017).

    A hole of length l at (y, x) covers the rows from int(y - l / 2) up to, not including, int(y + l / 2), clipped to
    the image, and the columns likewise. So it covers l pixels, as in the published code of Delta-STN (R17).

    Args:
        images: (B, C, H, W).
        length: (B,) side of the holes in pixels, floored.
        holes: (B,) number of holes, floored.
        max_holes: an upper bound of `holes`.
        generator: `h.generator`, or None for torch's global one.
    """
    batch, _, height, width = images.shape
    generator = global_generator(images.device) if generator is None else generator
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


def shift(images: Tensor, distance: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Images (B, C, H, W), each moved by whole pixels down and across, with zeros at the edge.

    Args:
        images: with any number of channels.
        distance: (B,) the largest distance in pixels along an axis; each is uniform in [-distance, distance], rounded.
        generator: `h.generator`, or None for torch's global one.
    """
    batch, _, height, width = images.shape
    unit = torch.rand(2, batch, generator=generator, device=images.device) * 2 - 1
    down, across = (unit * distance).round().long()
    rows, row_inside = _sources(height, down, images.device)
    columns, column_inside = _sources(width, across, images.device)
    result = images[torch.arange(batch, device=images.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    inside = row_inside[:, :, None] & column_inside[:, None, :]  # (B, H, W)
    return (result * inside.unsqueeze(-1)).permute(0, 3, 1, 2)


def noise(a: Tensor, scale: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """a (B, ...) plus normal noise of standard deviation `scale` (B,).

    Args:
        a: numbers of any shape.
        scale: one for each example.
        generator: `h.generator`, or None for torch's global one.
    """
    drawn = torch.randn(a.shape, generator=generator, device=a.device, dtype=a.dtype)
    return torch.addcmul(a, drawn, scale.to(a.dtype).view(-1, *(1,) * (a.dim() - 1)))


def cross_entropy(
    logits: Tensor, labels: Tensor, *, label_smoothing: Tensor | float = 0.0, ignore_index: int = -100
) -> Tensor:
    """The cross-entropy of each example in nats, (B,), with a label smoothing for each example.

    As `torch.nn.functional.cross_entropy`, which takes one smoothing for the whole batch: a smoothing s moves the share
    s of the target from the label to all classes evenly.

    Args:
        logits: (B, classes), or (B, classes, ...) for several labels an example, over which the loss is averaged.
        labels: (B,) or (B, ...), whole numbers.
        label_smoothing: (B,), such as `h.smoothing`, or one number.
        ignore_index: a label that does not count.
    """
    log_p = logits.log_softmax(1)
    right = F.nll_loss(log_p, labels, reduction="none", ignore_index=ignore_index)
    counted = labels != ignore_index
    even = -log_p.mean(1) * counted
    if isinstance(label_smoothing, Tensor):
        label_smoothing = label_smoothing.view(-1, *(1,) * (labels.dim() - 1)).to(log_p.dtype)
    losses = right + label_smoothing * (even - right)
    return losses.flatten(1).sum(1) / counted.flatten(1).sum(1).clamp(min=1) if labels.dim() > 1 else losses


def _sources(size: int, by: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each place along an axis: the place its pixel comes from, and whether that is inside; (B, size) each."""
    source = torch.arange(size, device=device) - by[:, None]
    return source.clamp(0, size - 1), (source >= 0) & (source < size)


def global_generator(device: torch.device) -> torch.Generator:
    """A generator seeded from torch's global one."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), device="cpu").item()))
