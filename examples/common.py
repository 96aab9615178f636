"""Shared by the examples: plain training at fixed values, random search, and a comparison of both with a tuner."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import cpmlho

torch.set_num_threads(1)
Values = Mapping[str, float]
Losses = tuple[float, float]  # validation, test


class Plain:
    """Stands for `net` in a training loss when no tuner is there."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self, *inputs: Any) -> Any:
        """Return the module's output."""
        return self._module(*inputs)

    def l2(self) -> Tensor:
        """Return half the sum of the squared weights, as a tuner's `net.l2()` does."""
        return torch.stack([p.square().sum() for p in self._module.parameters() if p.dim() > 1]).sum() / 2


def train(module: nn.Module, optimizer: torch.optim.Optimizer, loss: Any, values: Values, batches: Iterable) -> None:
    """Train the module with fixed hyperparameter values."""
    net = Plain(module)
    for batch in batches:
        h = {name: torch.full((len(batch[0]),), value) for name, value in values.items()}
        optimizer.zero_grad()
        loss(net, batch, SimpleNamespace(**h, generator=None)).mean().backward()
        optimizer.step()


def draw(space: Mapping[str, cpmlho.Uniform], generator: torch.Generator) -> dict[str, float]:
    """Draw each hyperparameter uniformly from its range, on a logarithmic scale for `LogUniform`."""
    return {n: range_.value(torch.rand((), generator=generator).logit()).item() for n, range_ in space.items()}


def compare(
    name: str,
    space: Mapping[str, cpmlho.Uniform],
    make: Callable[[Values], tuple[nn.Module, torch.optim.Optimizer]],
    train_loss: Any,
    valid_loss: Any,
    batches: Callable[[], Iterable],
    valid: Iterable,
    losses: Callable[[nn.Module], Losses],
) -> None:
    """Print the losses of a tuned training, of the start values, and of random search for the tuned training's time.

    Args:
        name: printed first.
        space: the ranges, with start values.
        make: makes module and optimizer; the values are empty if a tuner tunes them.
        train_loss: as for `cpmlho.Tuner`.
        valid_loss: as for `cpmlho.Tuner`.
        batches: gives the training batches of one training.
        valid: validation batches.
        losses: validation and test loss of a trained module.
    """

    def trial(values: Values) -> Losses:
        module, optimizer = make(values)
        train(module, optimizer, train_loss, values, batches())
        return losses(module)

    began = time.process_time()
    module, optimizer = make({})
    tuner = cpmlho.Tuner(module, space, train_loss, valid_loss, optimizer, valid)
    for batch in batches():
        tuner.step(batch)
    seconds = time.process_time() - began
    rows = [("tuned", losses(module), tuner.values)]

    start = {n: range_.start for n, range_ in space.items()}
    rows.append(("start values, no tuning", trial(start), start))

    generator, began, trials = torch.Generator().manual_seed(0), time.process_time(), []
    while not trials or time.process_time() - began < seconds:
        values = draw(space, generator)
        trials.append((trial(values), values))
    rows.append(("random search", *min(trials, key=lambda each: each[0][0])))

    print(f"{name}: tuning took {seconds:.1f} CPU seconds; random search ran {len(trials)} trials in that time")
    for label, (valid_, test), values in rows:
        shown = ", ".join(f"{key} {value:.3g}" for key, value in values.items())
        print(f"  {label:<24} validation loss {valid_:.4f}, test loss {test:.4f}, at {shown}")
