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
    from cpmlho.core.layers import ChannelsLast, Conv2d, Dropout, Flatten, Linear, MaxPool2, Relu, Residual
    from cpmlho.core.response import ResponseNetwork

    channels, height, breadth = inputs
    block = Residual((Relu(), Conv2d(width, width, 3, 1), Relu(), Dropout("dropout0"), Conv2d(width, width, 3, 1)))
    return ResponseNetwork(
        (
            ChannelsLast(),
            Conv2d(channels, width, 3, 1),
            MaxPool2(),
            *[block] * blocks,
            Relu(),
            MaxPool2(),
            Flatten(),
            Dropout("dropout1"),
            Linear(width * (height // 4) * (breadth // 4), output_units),
        )
    )
