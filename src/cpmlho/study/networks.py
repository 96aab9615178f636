"""The paper's two networks (section 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cpmlho.core.options import least
from cpmlho.study.registry import CUTOUT, NetworkOptions, Shape, network

if TYPE_CHECKING:
    from cpmlho.core.response import ResponseNetwork

GREY = (1, 28, 28)
DROPOUTS = ("dropout0", "dropout1", "dropout2")


@dataclass(frozen=True, kw_only=True)
class MLP(NetworkOptions):
    """Its options."""

    hidden_units: int = least(1)


@dataclass(frozen=True, kw_only=True)
class CNN(NetworkOptions):
    """Its options; without hidden units there is the classifier alone (R14)."""

    hidden_units: int = least(0)


def _cnn_hyperparameters(options: CNN) -> tuple[str, ...]:
    return (*DROPOUTS, *(("dropout_fc",) if options.hidden_units else ()), *CUTOUT)


@network(MLP, hyperparameters=lambda options: DROPOUTS, label="MLP")
def mlp(hidden_units: int, output_units: int, inputs: Shape = GREY) -> ResponseNetwork:
    """Three linear layers with ReLU between, dropout before each."""
    from cpmlho.core.layers import Dropout, Flatten, Linear, Relu
    from cpmlho.core.response import ResponseNetwork

    return ResponseNetwork(
        (
            Flatten(),
            Dropout("dropout0"),
            Linear(math.prod(inputs), hidden_units),
            Relu(),
            Dropout("dropout1"),
            Linear(hidden_units, hidden_units),
            Relu(),
            Dropout("dropout2"),
            Linear(hidden_units, output_units),
        )
    )


@network(CNN, hyperparameters=_cnn_hyperparameters, label="CNN", cost=3)
def cnn(hidden_units: int, output_units: int, inputs: Shape = GREY) -> ResponseNetwork:
    """Two 5 x 5 convolutions with pooling, a hidden linear layer unless `hidden_units` is 0 (R14), and the classifier.

    Raises:
        ValueError: the inputs are no images that can be halved twice.
    """
    from cpmlho.core.layers import ChannelsLast, Conv2d, Dropout, Flatten, Linear, MaxPool2, Relu
    from cpmlho.core.response import ResponseNetwork

    if len(inputs) != 3 or inputs[1] % 4 or inputs[2] % 4:
        raise ValueError(f"takes images (channels, height, width) with sides that are multiples of 4, got {inputs}")
    channels, height, width = inputs
    features = 32 * (height // 4) * (width // 4)
    body = (Linear(features, hidden_units), Relu(), Dropout("dropout_fc")) if hidden_units else ()
    return ResponseNetwork(
        (
            Dropout("dropout0"),
            ChannelsLast(),
            Conv2d(channels, 16, 5, 2),
            MaxPool2(),  # before ReLU: the two commute, and ReLU then costs a quarter
            Relu(),
            Dropout("dropout1"),
            Conv2d(16, 32, 5, 2),
            MaxPool2(),
            Relu(),
            Dropout("dropout2"),
            Flatten(),
            *body,
            Linear(hidden_units or features, output_units),
        )
    )
