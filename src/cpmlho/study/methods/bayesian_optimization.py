"""Bayesian optimisation (Snoek et al. 2012): a Gaussian process and expected improvement, by scikit-optimize."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpmlho.core.options import BayesianOptimization
from cpmlho.study.events import FRESH, Method, Past
from cpmlho.study.registry import method

if TYPE_CHECKING:
    from cpmlho.study.problem import Budget, Problem
    from cpmlho.study.trials import Proposals


@method(BayesianOptimization, kind="search", label="BO", colour="#009E73", line="-.")
def bayesian_optimization(
    problem: Problem, budget: Budget, options: BayesianOptimization, past: Past = FRESH
) -> Method:
    """Train `trials` points; after the first `initial_trials`, the results so far choose the next one."""
    from cpmlho.study.trials import search

    return search(problem, budget, propose(problem, budget, options), past)


def propose(problem: Problem, budget: Budget, options: BayesianOptimization) -> Proposals:
    """Yield the points that the optimizer chooses, preceded by the start values if `from_start` is set."""
    import torch
    from skopt import Optimizer  # here, because it takes 1.2 s that the other methods do not need
    from skopt.space import Real

    from cpmlho.study.trials import fraction, start_point

    optimizer = Optimizer(
        [Real(0.0, 1.0)] * len(problem.space),
        base_estimator="GP",
        acq_func="EI",
        n_initial_points=options.initial_trials,
        random_state=budget.streams(problem).number("search"),
    )
    start = start_point(problem, options).tolist() if options.from_start else None
    for trial in range(options.trials):
        point = [float(x) for x in (optimizer.ask() if trial or start is None else start)]
        optimizer.tell(point, (yield fraction(options, torch.tensor(point))))
