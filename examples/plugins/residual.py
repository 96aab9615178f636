"""A small residual network for images (He et al. 2016) without normalisation."""

from __future__ import annotations

from dataclasses import dataclass

from cpmlho.core.options import least
from cpmlho.study.registry import CUTOUT, NetworkOptions, network


@dataclass(frozen=True, kw_only=True)
class Options(NetworkOptions):
    """Options of the network; `NetworkOptions` adds `output_units`."""

    width: int = least(1, 16)  # channels of each convolution
    blocks: int = least(1, 2)


@network(Options, hyperparameters=lambda options: ("dropout0", "dropout1", *CUTOUT), label="ResNet", cost=5)
def residual(inputs, width, blocks, output_units):
    """Return a convolution, residual blocks of two convolutions at half the resolution, and a linear classifier."""
    from torch import nn

    from cpmlho import Dropout

    def convolution(channels):
        return nn.Conv2d(channels, width, 3, padding=1)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            stages = nn.ReLU(), convolution(width), nn.ReLU(), Dropout("dropout0", channels=True), convolution(width)
            self.stages = nn.Sequential(*stages)

        def forward(self, a):
            return a + self.stages(a)

    channels, height, breadth = inputs
    return nn.Sequential(
        convolution(channels),
        nn.MaxPool2d(2),
        *(Block() for _ in range(blocks)),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        Dropout("dropout1"),
        nn.Linear(width * (height // 4) * (breadth // 4), output_units),
    )
