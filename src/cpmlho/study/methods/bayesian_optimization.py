"""Bayesian optimisation (Snoek et al. 2012): a Gaussian process and expected improvement, by scikit-optimize."""

from __future__ import annotations

import torch

from cpmlho.core.events import FRESH, Method, Past
from cpmlho.core.problem import Problem
from cpmlho.core.trials import Proposals, search
from cpmlho.study.settings import BayesianOptimization


def bayesian_optimization(problem: Problem, settings: BayesianOptimization, past: Past = FRESH) -> Method:
    """Train `trials` points, each after the first `initial_trials` chosen by all before it."""
    return search(problem, propose(problem, settings), past)


def propose(problem: Problem, settings: BayesianOptimization) -> Proposals:
    """Points of the unit cube from ask and tell."""
    from skopt import Optimizer  # 1.2 s that the other methods need not spend
    from skopt.space import Real

    optimizer = Optimizer(
        [Real(0.0, 1.0)] * len(problem.space.names),
        base_estimator="GP",
        acq_func="EI",
        n_initial_points=settings.initial_trials,
        random_state=problem.streams().number("search"),
    )
    for _ in range(settings.trials):
        point = [float(x) for x in optimizer.ask()]
        optimizer.tell(point, (yield torch.tensor(point)))
