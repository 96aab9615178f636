"""The paper's two networks (section 4)."""

from __future__ import annotations

from cpmlho.core.layers import ChannelsLast, Conv2d, Dropout, Flatten, Linear, MaxPool2, Relu
from cpmlho.core.response import ResponseNetwork
from cpmlho.study.settings import Network

PIXELS = 28 * 28


def mlp(hidden: int, outputs: int) -> ResponseNetwork:
    """Three linear layers with ReLU between, dropout before each."""
    return ResponseNetwork(
        (
            Flatten(),
            Dropout("dropout0"),
            Linear(PIXELS, hidden),
            Relu(),
            Dropout("dropout1"),
            Linear(hidden, hidden),
            Relu(),
            Dropout("dropout2"),
            Linear(hidden, outputs),
        )
    )


def cnn(hidden: int, outputs: int) -> ResponseNetwork:
    """Two 5 x 5 convolutions with pooling, a hidden linear layer unless `hidden` is 0 (R14), and the classifier."""
    features = 32 * PIXELS // 16
    body = (Linear(features, hidden), Relu(), Dropout("dropout_fc")) if hidden else ()
    return ResponseNetwork(
        (
            Dropout("dropout0"),
            ChannelsLast(),
            Conv2d(1, 16, 5, 2),
            MaxPool2(),  # before ReLU: the two commute, and ReLU then costs a quarter
            Relu(),
            Dropout("dropout1"),
            Conv2d(16, 32, 5, 2),
            MaxPool2(),
            Relu(),
            Dropout("dropout2"),
            Flatten(),
            *body,
            Linear(hidden or features, outputs),
        )
    )


def build(network: Network) -> ResponseNetwork:
    """The network that the configuration names."""
    return {"mlp": mlp, "cnn": cnn}[network.kind](network.hidden_units, network.output_units)
