"""The cost of tuning: a Tuner's step in units of a plain training step, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import cpmlho
from benchmarks import Row, in_turns
from cpmlho.study.networks import cnn, mlp

CYCLE = 5  # training steps to a hyperparameter step


def resnet18() -> nn.Module:
    """ResNet-18 with a tuned dropout before its classifier."""
    module = torchvision.models.resnet18(num_classes=10)
    module.fc = nn.Sequential(cpmlho.Dropout("dropout0"), module.fc)
    return module


def vit() -> nn.Module:
    """A small vision transformer with a tuned dropout before its classifier."""
    module = torchvision.models.VisionTransformer(
        image_size=32, patch_size=4, num_layers=4, num_heads=4, hidden_dim=192, mlp_dim=384, num_classes=10
    )
    module.heads = nn.Sequential(cpmlho.Dropout("dropout0"), module.heads)
    return module


GREY, COLOUR = (128, 1, 28, 28), (32, 3, 32, 32)
DROPOUTS = ("dropout0", "dropout1", "dropout2")
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[str, ...]]] = {
    "MLP": (lambda: mlp(1200, 10), GREY, DROPOUTS),
    "CNN": (lambda: cnn(0, 10), GREY, DROPOUTS),
    "ResNet-18": (resnet18, COLOUR, DROPOUTS[:1]),
    "ViT": (vit, COLOUR, DROPOUTS[:1]),
}


def costs() -> Iterator[Row]:
    """A row for each network: milliseconds of a plain and of a tuned step, and their ratio, on one thread."""
    torch.set_num_threads(1)
    for case, (make, shape, names) in CASES.items():
        batch = torch.randn(shape), torch.arange(shape[0]) % 10
        module = make()
        optimizer = torch.optim.SGD(module.parameters(), 0.01)
        tuner = cpmlho.Tuner(
            module,
            {name: cpmlho.Uniform(0.0, 0.95, 0.05) for name in names},
            lambda net, batch, h: F.cross_entropy(net(batch[0]), batch[1], reduction="none"),
            lambda net, batch: F.cross_entropy(net(batch[0]), batch[1]),
            optimizer,
            [batch],
            check=False,
        )

        def plain(module: nn.Module = module, optimizer: torch.optim.SGD = optimizer, batch: tuple = batch) -> None:
            for _ in range(CYCLE):
                optimizer.zero_grad()
                F.cross_entropy(module(batch[0]), batch[1]).backward()
                optimizer.step()

        def tuned(tuner: cpmlho.Tuner = tuner, batch: tuple = batch) -> None:
            for _ in range(CYCLE):
                tuner.step(batch)

        taken = in_turns({"plain": plain, "tuned": tuned})
        yield {
            "network": case,
            **{f"{name} step, ms": ms / CYCLE for name, ms in taken.items()},
            "tuned / plain": taken["tuned"] / taken["plain"],
        }
