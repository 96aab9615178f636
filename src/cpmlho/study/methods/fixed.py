"""Training without tuning, at the start values or at the final values of another method's run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpmlho.core.options import Fixed
from cpmlho.study.events import FRESH, Method, Past, Snapshot, Tick
from cpmlho.study.registry import method

if TYPE_CHECKING:
    from torch import Tensor

    from cpmlho.study.problem import Budget, Problem


@method(Fixed, kind="fixed", label="No tuning", colour="#767676")
def fixed(problem: Problem, budget: Budget, options: Fixed, past: Past = FRESH) -> Method:
    """Train at the start values and yield a snapshot after each evaluated epoch.

    If `values_of` names a method, `results.with_values` has made its final values the start values.
    """
    import torch

    from cpmlho.study.problem import predictor
    from cpmlho.study.trials import FixedTraining

    start = torch.tensor([each.first for each in problem.space.values()], device=problem.device)
    values, iterations = problem.space.named(start), budget.iterations(problem)
    training = FixedTraining(problem, budget, start)
    if past.state is not None:
        training.restore(past.state)
    module = training.module
    losses: list[Tensor] = []
    for epoch in range(past.epoch + 1, budget.epochs + 1):
        losses += [training.step() for _ in range(iterations)]
        if not budget.evaluates(epoch):
            yield Tick(epoch)
            continue
        loss, losses = torch.stack(losses).mean(), []
        step = epoch * iterations
        yield Snapshot(
            epoch, step, predictor(module), values, state=training.state, weights=module.state_dict, train_loss=loss
        )
