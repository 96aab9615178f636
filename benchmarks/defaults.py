"""Regrets of the options of Delta-STN: `python -m benchmarks.defaults [seeds]` prints the table of docs/defaults.md.

The regret is the validation loss at the values where tuning ended minus that at the best values, divided by the same
difference for the start values: 0 is the optimum, 1 is no gain, and more than 1 is worse than the start. The losses of
the linear problems come from the exact solution of the training problem. For label smoothing they come from the tuned
network, and from trainings on a grid of values.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpmlho
from cpmlho.core.options import ResponseOptions

Batch = tuple[Tensor, Tensor]
STEPS, ROWS, FEATURES = 1000, 40, 20
WEIGHTS: dict[str, Any] = {"response_start": "weights"}
FROZEN: dict[str, Any] = {**WEIGHTS, "response_weights": "frozen"}
BIAS: dict[str, Any] = {"bias_correction": True}
LATE: dict[str, Any] = {"warm_up_steps": 200}
VARIANTS: dict[str, dict[str, Any]] = {
    "as published": {},
    "bias correction": BIAS,
    "warm-up of 200 steps": LATE,
    "warm-up, bias correction": {**LATE, **BIAS},
    "R starts at W": WEIGHTS,
    "R starts at W, bias correction": {**WEIGHTS, **BIAS},
    "R frozen at W": FROZEN,
    "R frozen at W, bias correction": {**FROZEN, **BIAS},
    "R frozen at W, warm-up, bias correction": {**FROZEN, **LATE, **BIAS},
    "response 10 times as fast": {"faster": 10},
    "response 10 times as fast, bias correction": {"faster": 10, **BIAS},
    "temperature, bias correction": {"response": "temperature", **BIAS},
}


class Problem(NamedTuple):
    """A module with the arguments of its Tuner, and a function that returns the regret of a tuner."""

    module: nn.Module
    space: dict[str, cpmlho.Uniform]
    train_loss: Callable[..., Tensor]
    valid_loss: Callable[..., Tensor]
    rate: float
    train: Batch
    valid: Batch
    regret: Callable[[cpmlho.Tuner], float]


class Parts(nn.Module):
    """A linear regression with its features divided among several layers."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.part = nn.ModuleList(nn.Linear(FEATURES // count, 1, bias=False) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """Return the prediction (B,) for x (B, features)."""
        return sum(part(each)[:, 0] for part, each in zip(self.part, x.chunk(len(self.part), 1), strict=True))


def linear(seed: int, act: str, ranges: list[cpmlho.Uniform]) -> Problem:
    """Return a linear regression that tunes a decay, a noise level or a dropout rate for each layer.

    Each of them is a penalty on the squared weights, so the optimum is known.
    """
    g, count = torch.Generator().manual_seed(seed), len(ranges)
    relevance = torch.linspace(0, 2, count).repeat_interleave(FEATURES // count) if count > 1 else 1
    truth = torch.randn(FEATURES, generator=g) / FEATURES**0.5 * relevance

    def draw(rows: int) -> Batch:
        x = torch.randn(rows, FEATURES, generator=g)
        return x, x @ truth + torch.randn(rows, generator=g)

    (x, y), valid, space = draw(ROWS), draw(200), {f"v{i}": each for i, each in enumerate(ranges)}
    torch.manual_seed(seed)
    module: nn.Module = Parts(count)
    if act == "dropout":
        module = nn.Sequential(cpmlho.Dropout("v0"), module)

    def squares(net: Any, batch: Batch) -> Tensor:
        return (net(batch[0]) - batch[1]).square()

    def train_loss(net: Any, batch: Batch, h: Any) -> Tensor:
        if act == "dropout":
            return squares(net, batch)
        if act == "noise":
            parts = zip(batch[0].chunk(count, 1), space, strict=True)
            x = torch.cat([cpmlho.noise(part, h[name], generator=h.generator) for part, name in parts], 1)
            return squares(net, (x, batch[1]))
        each = zip(net.parameters(), space, strict=True)
        return squares(net, batch) + sum(h[name] * p.square().flatten(1).sum(1) for p, name in each)

    def exact(values: Tensor) -> Tensor:
        gram, each = x.T @ x / ROWS, values.repeat_interleave(FEATURES // count)
        penalty = {"decay": each, "noise": each.square(), "dropout": each / (1 - each) * gram.diag()}[act]
        w = torch.linalg.solve(gram + penalty.diag(), x.T @ y / ROWS)
        return (valid[0] @ w - valid[1]).square().mean()

    def regret(tuner: cpmlho.Tuner) -> float:
        ranges = tuner.space
        lam = torch.tensor(ranges.start(), requires_grad=True)
        start, optimizer = exact(ranges.value(lam)).item(), torch.optim.Adam([lam], 0.1)
        for _ in range(400):
            optimizer.zero_grad()
            exact(ranges.value(lam)).backward()
            optimizer.step()
        best = exact(ranges.value(lam.detach())).item()
        return (exact(torch.tensor([*tuner.values.values()])).item() - best) / (start - best)

    return Problem(module, space, train_loss, squares, 0.05, (x, y), valid, regret)


def smoothing(seed: int) -> Problem:
    """Return a small network on 100 examples that tunes its label smoothing; a fifth of the labels are random."""
    g, range_ = torch.Generator().manual_seed(seed), cpmlho.Uniform(0, 0.95, 0.05)
    centres = torch.randn(5, FEATURES, generator=g)

    def draw(rows: int) -> Batch:
        labels, other = torch.randint(5, (2, rows), generator=g)
        x = centres[labels] + 1.5 * torch.randn(rows, FEATURES, generator=g)
        return x, torch.where(torch.rand(rows, generator=g) < 0.2, other, labels)

    train, valid = draw(100), draw(400)

    def make() -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 5))

    def valid_loss(net: Any, batch: Batch) -> Tensor:
        return F.cross_entropy(net(batch[0]), batch[1])

    @functools.cache
    def trained(value: float) -> float:
        module = make()
        optimizer = torch.optim.SGD(module.parameters(), 0.2)
        for _ in range(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(module(train[0]), train[1], label_smoothing=value).backward()
            optimizer.step()
        with torch.no_grad():
            return valid_loss(module, valid).item()

    def regret(tuner: cpmlho.Tuner) -> float:
        start, best = trained(range_.first), min(trained(0.1 * i) for i in range(1, 9))
        return (tuner.evaluate([valid])["valid_loss"] - best) / (start - best)

    def train_loss(net: Any, batch: Batch, h: Any) -> Tensor:
        return cpmlho.cross_entropy(net(batch[0]), batch[1], label_smoothing=h.v)

    return Problem(make(), {"v": range_}, train_loss, valid_loss, 0.2, train, valid, regret)


DECAY = cpmlho.LogUniform(1e-3, 10, 0.01)
PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "ridge from 0.01": lambda seed: linear(seed, "decay", [DECAY]),
    "ridge from 3": lambda seed: linear(seed, "decay", [cpmlho.LogUniform(1e-3, 10, 3)]),
    "ten decays": lambda seed: linear(seed, "decay", [DECAY] * 10),
    "two noise levels": lambda seed: linear(seed, "noise", [cpmlho.Uniform(0, 3, 0.1)] * 2),
    "dropout": lambda seed: linear(seed, "dropout", [cpmlho.Uniform(0, 0.95, 0.05)]),
    "label smoothing": smoothing,
}


def applies(variant: str, problem: str) -> bool:
    """Return whether a variant can tune a problem: a temperature does not respond to a decay."""
    return "temperature" not in variant or problem in ("dropout", "label smoothing", "two noise levels")


def regret(variant: str, problem: str, seed: int) -> float:
    """Return the regret of one tuning run."""
    p, options = PROBLEMS[problem](seed), dict(VARIANTS[variant])
    method = ResponseOptions(response_learning_rate=options.pop("faster", 1) * p.rate, **options)
    optimizer = torch.optim.SGD(p.module.parameters(), p.rate)
    arguments = (p.module, p.space, p.train_loss, p.valid_loss, optimizer, [p.valid])
    tuner = cpmlho.Tuner(*arguments, method=method, seed=seed, check=False)
    for _ in range(STEPS):
        tuner.step(p.train)
    return p.regret(tuner)


def main() -> None:
    """Print the table: the median regret over the seeds and, in brackets, the largest."""
    torch.set_num_threads(1)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    print(f"| regret: median (worst) of {seeds} seeds | {' | '.join(PROBLEMS)} |")
    print("| --- " * (len(PROBLEMS) + 1) + "|")
    for variant in VARIANTS:
        cells = []
        for problem in PROBLEMS:
            found = torch.tensor([regret(variant, problem, seed) for seed in range(seeds) if applies(variant, problem)])
            cells.append(f"{found.median():.2f} ({found.max():.2f})" if len(found) else "does not apply")
        print(f"| {variant} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
