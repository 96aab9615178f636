"""What tuning costs: a Tuner's step beside a plain training step, and beside the study's own path on its networks.

Processor time on one thread, in turns, so that what else the machine does counts little.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import cpmlho
from benchmarks import Row
from cpmlho.core.alternating import Alternation
from cpmlho.core.options import ResponseOptions, Training
from cpmlho.core.problem import Conditions, Problem, Split
from cpmlho.core.response import ResponseNetwork
from cpmlho.core.space import Space
from cpmlho.study.networks import cnn, mlp

RATE, CYCLE = 0.01, 5  # learning rate; training steps to a hyperparameter step
DROPOUTS = ("dropout0", "dropout1", "dropout2")


class Range(NamedTuple):
    """As the study's settings have it."""

    low: float
    high: float
    start: float


def mlp_module() -> nn.Module:
    """The study's MLP as a plain module."""
    drop, hidden = cpmlho.Dropout, 1200
    first = nn.Flatten(), drop("dropout0"), nn.Linear(784, hidden), nn.ReLU()
    second = drop("dropout1"), nn.Linear(hidden, hidden), nn.ReLU()
    return nn.Sequential(*first, *second, drop("dropout2"), nn.Linear(hidden, 10))


class ChannelsLast(nn.Module):
    """The layout in which a CPU pools several times as fast, as in the study's network."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same numbers (B, C, H, W) in another order of strides."""
        return x.clone(memory_format=torch.channels_last)


def cnn_module() -> nn.Module:
    """The study's CNN as a plain module."""

    def drop(name: str) -> nn.Module:
        return cpmlho.Dropout(name, channels=True)

    first = drop("dropout0"), ChannelsLast(), nn.Conv2d(1, 16, 5, padding=2), nn.MaxPool2d(2), nn.ReLU()
    second = drop("dropout1"), nn.Conv2d(16, 32, 5, padding=2), nn.MaxPool2d(2), nn.ReLU()
    head = drop("dropout2"), nn.Flatten(), nn.Linear(1568, 1568), nn.ReLU(), nn.Linear(1568, 10)
    return nn.Sequential(*first, *second, *head)


def resnet18() -> nn.Module:
    """ResNet-18 with a tuned dropout before its classifier."""
    module = torchvision.models.resnet18(num_classes=10)
    module.fc = nn.Sequential(cpmlho.Dropout("dropout0"), module.fc)
    return module


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[str, ...], ResponseNetwork | None]] = {
    "MLP": (mlp_module, (128, 1, 28, 28), DROPOUTS, mlp(1200, 10)),
    "CNN": (cnn_module, (128, 1, 28, 28), DROPOUTS, cnn(1568, 10)),
    "ResNet-18": (resnet18, (32, 3, 32, 32), DROPOUTS[:1], None),
}


def cpu_seconds(repeats: int, *acts: Callable[[], object]) -> list[float]:
    """Processor time of each, the median of several calls taken in turns, after one to warm up."""
    times: list[list[float]] = [[] for _ in acts]
    for act in acts:
        act()
    for _ in range(repeats):
        for act, own in zip(acts, times, strict=True):
            start = time.process_time()
            act()
            own.append(time.process_time() - start)
    return [median(own) for own in times]


def costs(repeats: int = 7) -> Iterator[Row]:
    """A row for each network: milliseconds of a plain step, and a tuned step's cost in plain ones and in fused ones."""
    torch.set_num_threads(1)
    for case, (make, shape, names, network) in CASES.items():
        batch = torch.randn(shape), torch.arange(shape[0]) % 10
        ranges = {name: Range(0.0, 0.95, 0.05) for name in names}
        module = make()
        optimizer = torch.optim.SGD(module.parameters(), RATE)
        tuner = cpmlho.Tuner(
            module,
            {name: cpmlho.Uniform(*each) for name, each in ranges.items()},
            lambda net, batch, h: F.cross_entropy(net(batch[0]), batch[1], reduction="none"),
            lambda net, batch: F.cross_entropy(net(batch[0]), batch[1]),
            optimizer,
            [batch],
            check=False,
        )

        def plain(module: nn.Module = module, optimizer: Any = optimizer, batch: Any = batch) -> None:
            for _ in range(CYCLE):
                optimizer.zero_grad()
                F.cross_entropy(module(batch[0]), batch[1]).backward()
                optimizer.step()

        def tuned(tuner: Any = tuner, batch: Any = batch) -> None:
            for _ in range(CYCLE):
                tuner.step(batch)

        ours = [] if network is None else [fused_cycle(network, batch, ranges)]
        untuned, cycle, *fused = cpu_seconds(repeats, plain, tuned, *ours)
        yield {
            "network": case,
            "plain_ms": untuned / CYCLE * 1e3,
            "tuned_ms": cycle / CYCLE * 1e3,
            "tuned_over_plain": cycle / untuned,
            "tuned_over_fused": cycle / fused[0] if fused else math.nan,
        }


def fused_cycle(network: ResponseNetwork, batch: Any, ranges: dict[str, Range]) -> Callable[[], None]:
    """The study's own cycle of the same steps."""
    part = Split(*batch)
    problem = Problem(part, part, part, network, Space.of(ranges))
    conditions = Conditions(Training(batch_size=len(batch[1]), learning_rate=RATE), epochs=1, seed=0)
    run = Alternation(problem, conditions, ResponseOptions())

    def cycle() -> None:
        for _ in range(CYCLE):
            run.iterate()
        run.update(tune=True)

    return cycle
