"""What the examples share: training at fixed values, random search for as long as a tuner took, and their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import cpmlho

torch.set_num_threads(1)
Values = dict[str, float]


class Plain:
    """A module as losses call it, at weights that do not respond."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self, *inputs: Any) -> Any:
        """The module's output."""
        return self._module(*inputs)

    def l2(self) -> Tensor:
        """Half the squared weights, as in a Tuner's `net.l2()`."""
        return torch.stack([p.square().sum() for p in self._module.parameters() if p.dim() > 1]).sum() / 2


def train(module: nn.Module, optimizer: torch.optim.Optimizer, loss: Any, values: Values, batches: Iterable) -> None:
    """Plain training at fixed values."""
    net = Plain(module)
    for batch in batches:
        h = {name: torch.full((len(batch[0]),), value) for name, value in values.items()}
        optimizer.zero_grad()
        loss(net, batch, SimpleNamespace(**h, generator=None)).mean().backward()
        optimizer.step()


def random_search(
    space: Mapping[str, cpmlho.Uniform], seconds: float, trial: Callable[[Values], tuple[float, float]]
) -> tuple[float, float, Values, int]:
    """The trial of least validation loss, (validation, test) a trial, of as many as `seconds` of CPU time allow."""
    draws, start, trials = torch.Generator().manual_seed(0), time.process_time(), []
    while not trials or time.process_time() - start < seconds:
        values = {n: each.value(torch.rand((), generator=draws).logit()).item() for n, each in space.items()}
        trials.append((*trial(values), values))
    return (*min(trials, key=lambda each: each[0]), len(trials))


def report(
    name: str, tuned: tuple[float, float, Values], seconds: float, found: tuple[float, float, Values, int]
) -> None:
    """Print both results side by side."""
    *searched, count = found
    print(f"{name}: tuned in one training of {seconds:.1f} CPU seconds; random search had {count} trainings in them")
    for label, (valid, test, values) in (("tuned", tuned), ("random search", searched)):
        shown = ", ".join(f"{key} {value:.3g}" for key, value in values.items())
        print(f"  {label:<14} validation loss {valid:.4f}, test loss {test:.4f}, at {shown}")
