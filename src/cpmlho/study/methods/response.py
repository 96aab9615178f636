"""The training loop that STN, Delta-STN and CPMLHO share: the library's Tuner trains and tunes at the same time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cpmlho.core.options import ResponseOptions
from cpmlho.core.planes import PlaneState
from cpmlho.core.spaces import Space
from cpmlho.core.streams import Streams
from cpmlho.core.tuner import Tuner
from cpmlho.study.events import Method, Past, Snapshot, Tick, Update
from cpmlho.study.problem import Budget, Problem, predictor


def train_and_tune(problem: Problem, budget: Budget, options: ResponseOptions, past: Past) -> Method:
    """Train for the whole budget and yield a snapshot after each evaluated epoch."""
    streams, iterations = budget.streams(problem), budget.iterations(problem)
    tuner = tuner_of(problem, budget, options, streams)
    batches = budget.batches(problem.train, streams.host("train_order"))
    if past.state is not None:
        tuner.load_state_dict(past.state["tuner"])
        batches.load_state_dict(past.state["batches"])
    lam, updates = tuner.bilevel.lam.detach(), tuner.updates
    path = [(0, 0, lam.clone())] if past.state is None else []
    losses: list[Tensor] = []
    for epoch in range(past.epoch + 1, budget.epochs + 1):
        for _ in range(iterations):
            losses.append(tuner.step(next(batches)))
            if tuner.updates > updates:
                updates = tuner.updates
                path.append((updates, tuner.steps, lam.clone()))
        if not budget.evaluates(epoch):
            yield Tick(epoch)
            continue
        yield Snapshot(
            epoch,
            tuner.steps,
            predictor(tuner.module, tuner.net),
            tuner.values,
            updates=_updates(problem.space, path),
            planes=_planes(tuner, epoch),
            state=lambda: {"tuner": tuner.state_dict(), "batches": batches.state_dict()},
            weights=tuner.module_state,
            train_loss=torch.stack(losses).mean(),
        )
        path, losses = [], []


def tuner_of(problem: Problem, budget: Budget, options: ResponseOptions, streams: Streams) -> Tuner:
    """Return the tuner of a run, before its first step."""
    init = streams.host("init")
    module = problem.module(init)
    return Tuner(
        module,
        problem.space,
        problem.train_loss,
        problem.valid_loss,
        budget.optimizer(module),
        budget.batches(problem.valid, streams.host("valid_order")),
        method=options,
        train=budget.batches(problem.train, streams.host("upper_order")),
        steps_per_epoch=budget.iterations(problem),
        autocast=budget.autocast,
        seed=budget.seed,
        check=False,
        init=init,
    )


def _updates(space: Space, path: Sequence[tuple[int, int, Tensor]]) -> list[Update]:
    """Return the updates with values by name; all are copied from the device at once."""
    if not path:
        return []
    rows = space.value(torch.stack([lam for _, _, lam in path])).cpu()
    return [Update(u, step, space.named(row)) for (u, step, _), row in zip(path, rows, strict=True)]


def _planes(tuner: Tuner, epoch: int) -> list[PlaneState]:
    """Return the state of each cutting plane; empty before the first plane."""
    bilevel = tuner.bilevel
    if not bilevel.planes:
        return []
    return bilevel.planes.states(epoch, tuner.steps, bilevel.gap(), bilevel.gradient_share())
