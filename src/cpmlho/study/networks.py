"""The paper's two networks (section 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cpmlho.core.options import least
from cpmlho.study.registry import CUTOUT, NetworkOptions, Shape, network

if TYPE_CHECKING:
    from torch import nn

GREY = (1, 28, 28)
DROPOUTS = ("dropout0", "dropout1", "dropout2")


@dataclass(frozen=True, kw_only=True)
class MLP(NetworkOptions):
    """Options of the MLP."""

    hidden_units: int = least(1)


@dataclass(frozen=True, kw_only=True)
class CNN(NetworkOptions):
    """Options of the CNN; with 0 hidden units it has no hidden linear layer (R14)."""

    hidden_units: int = least(0)


def _cnn_hyperparameters(options: CNN) -> tuple[str, ...]:
    return (*DROPOUTS, *(("dropout_fc",) if options.hidden_units else ()), *CUTOUT)


@network(MLP, hyperparameters=lambda options: DROPOUTS, label="MLP")
def mlp(hidden_units: int, output_units: int, inputs: Shape = GREY) -> nn.Module:
    """Return three linear layers with ReLU between them and dropout before each."""
    from torch import nn

    from cpmlho.core.augment import Dropout

    return nn.Sequential(
        nn.Flatten(),
        Dropout("dropout0"),
        nn.Linear(math.prod(inputs), hidden_units),
        nn.ReLU(),
        Dropout("dropout1"),
        nn.Linear(hidden_units, hidden_units),
        nn.ReLU(),
        Dropout("dropout2"),
        nn.Linear(hidden_units, output_units),
    )


@network(CNN, hyperparameters=_cnn_hyperparameters, label="CNN", cost=3)
def cnn(hidden_units: int, output_units: int, inputs: Shape = GREY) -> nn.Module:
    """Return two 5 x 5 convolutions with pooling, a hidden linear layer unless `hidden_units` is 0, and a classifier.

    Raises:
        ValueError: the inputs are not images, or their sides are not multiples of 4.
    """
    from torch import nn

    from cpmlho.core.augment import Dropout
    from cpmlho.study.pooling import ChannelsLast, MaxPool2

    if len(inputs) != 3 or inputs[1] % 4 or inputs[2] % 4:
        raise ValueError(f"takes images (channels, height, width) with sides that are multiples of 4, got {inputs}")
    channels, height, width = inputs
    features = 32 * (height // 4) * (width // 4)
    hidden = (nn.Linear(features, hidden_units), nn.ReLU(), Dropout("dropout_fc")) if hidden_units else ()
    return nn.Sequential(
        Dropout("dropout0", channels=True),
        ChannelsLast(),
        nn.Conv2d(channels, 16, 5, padding=2),
        MaxPool2(),  # before ReLU: the result is the same, and ReLU then costs a quarter
        nn.ReLU(),
        Dropout("dropout1", channels=True),
        nn.Conv2d(16, 32, 5, padding=2),
        MaxPool2(),
        nn.ReLU(),
        Dropout("dropout2", channels=True),
        nn.Flatten(),
        *hidden,
        nn.Linear(hidden_units or features, output_units),
    )
