"""Searches: trials at fixed hyperparameters, each one full training (R11)."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator

from torch import Tensor

from cpmlho.results import Metrics
from cpmlho.tuning.method import Method, Snapshot, Tick
from cpmlho.tuning.problem import Problem
from cpmlho.tuning.response import General
from cpmlho.tuning.steps import Trained, general_step

WORST_LOSS = 1e3  # what a diverged trial counts for: finite, and worse than any loss that has not diverged

# Proposes points (n,) of the unit cube; is sent each one's validation loss.
Proposals = Generator[Tensor, float, None]


def search(problem: Problem, proposals: Proposals) -> Method:
    """Train each proposal for the whole budget and tell its validation loss.

    All trials share initialisation, order and noise, as the streams start anew with each.
    """
    epoch = step = 0
    point = next(proposals)
    while True:
        values = problem.space.from_unit(point.to(problem.device))
        general, _ = problem.initialise(problem.streams().host("init"))
        trained = Trained(general, problem.dtype)
        for _ in train_fixed(problem, values, trained):
            epoch, step = epoch + 1, step + problem.iterations
            yield Tick(epoch)
        named = problem.space.named(values)
        metrics = yield Snapshot(epoch, step, predictor(problem, general), named)
        assert metrics is not None
        try:
            point = proposals.send(score(metrics))
        except StopIteration:
            return


def score(metrics: Metrics) -> float:
    """The loss that a proposal is told: finite, also of a trial that diverged."""
    return min(metrics.val_loss, WORST_LOSS) if math.isfinite(metrics.val_loss) else WORST_LOSS


def predictor(problem: Problem, general: list[General]) -> Callable[[Tensor], Tensor]:
    """The network at these parameters, dropout and cutout off."""
    return lambda inputs: problem.network.forward(inputs, general)


def train_fixed(problem: Problem, values: Tensor, general: Trained[General]) -> Iterator[None]:
    """Train `general` in place at fixed hyperparameter values (n,); yields after each epoch."""
    streams = problem.streams()
    batches = problem.batches(problem.train, streams.host("train_order"))
    noise = streams.device("general_noise")
    for _ in range(problem.epochs):
        for _ in range(problem.iterations):
            general_step(problem, general, next(batches), values, noise)
        yield
