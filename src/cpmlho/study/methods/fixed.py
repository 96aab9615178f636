"""Training without tuning: how good the values are that a method ended at, apart from the way it came there."""

from __future__ import annotations

from cpmlho.core.events import FRESH, Method, Past, Snapshot
from cpmlho.core.problem import Problem
from cpmlho.core.trials import Training, predictor
from cpmlho.study.settings import Fixed


def fixed(problem: Problem, settings: Fixed, past: Past = FRESH) -> Method:
    """Train at the start values, which `results.with_values` has set; a snapshot after each epoch."""
    values = problem.space.start
    training = Training(problem, values)
    if past.state is not None:
        training.restore(past.state)
    for epoch in range(len(past.metrics) + 1, problem.epochs + 1):
        for _ in range(problem.iterations):
            training.step()
        predict = predictor(problem, training.general.masters)
        named = problem.space.named(values)
        yield Snapshot(epoch, epoch * problem.iterations, predict, named, state=training.state)
