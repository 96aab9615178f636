"""When each step of the alternation is taken."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cpmlho.core.alternating import Alternation
from cpmlho.core.events import Method, Past, Snapshot, Update
from cpmlho.core.problem import Problem


def alternate(run: Alternation, past: Past) -> Method:
    """Train with hyperparameters that are tuned on the way; a snapshot after each epoch."""
    if past.state is not None:
        run.restore(past.state)
    space, options, done = run.problem.space, run.options, len(past.metrics)
    iterations = run.conditions.iterations(run.problem)
    step, warm = done * iterations, options.warm_up * iterations
    path = [] if done else [(0, 0, space.start)]
    for epoch in range(done + 1, run.conditions.epochs + 1):
        for _ in range(iterations):
            run.iterate()
            step += 1
            if step % options.train_steps == 0:
                run.update(tune=step > warm)
                if step > warm:
                    number = step // options.train_steps - warm // options.train_steps
                    path.append((number, step, space.values(run.raw.detach())))
            if run.planes is not None and run.planes.due(step, iterations):
                run.cut()
        updates, path = _updates(run.problem, path), []
        values = space.named(space.values(run.raw.detach()))
        planes = run.plane_states(epoch, step)
        yield Snapshot(epoch, step, run.predict, values, updates, planes, run.state, run.weights)


def _updates(problem: Problem, path: Sequence[tuple[int, int, Tensor]]) -> list[Update]:
    """The updates with their values by name; one transfer from the device for all of them."""
    if not path:
        return []
    rows = torch.stack([values for _, _, values in path]).cpu()
    return [Update(u, step, problem.space.named(row)) for (u, step, _), row in zip(path, rows, strict=True)]
