"""Training without tuning: how good the values are that a method ended at, apart from the way it came there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpmlho.core.events import FRESH, Method, Past, Snapshot
from cpmlho.core.options import Fixed
from cpmlho.study.methods.registry import method

if TYPE_CHECKING:
    from cpmlho.core.problem import Conditions, Problem


@method(Fixed, kind="fixed", label="No tuning", colour="#999999")
def fixed(problem: Problem, conditions: Conditions, options: Fixed, past: Past = FRESH) -> Method:
    """Train at the start values, which `results.with_values` has set; a snapshot after each epoch."""
    from cpmlho.core.trials import FixedTraining, predictor

    values, iterations = problem.space.start, conditions.iterations(problem)
    training = FixedTraining(problem, conditions, values)
    if past.state is not None:
        training.restore(past.state)
    general = training.general.masters
    predict, named = predictor(problem, general), problem.space.named(values)
    for epoch in range(len(past.metrics) + 1, conditions.epochs + 1):
        for _ in range(iterations):
            training.step()
        yield Snapshot(epoch, epoch * iterations, predict, named, state=training.state, weights=lambda: general)
