"""Random search (Bergstra and Bengio 2012): values uniform over their ranges."""

from __future__ import annotations

import torch

from cpmlho.settings import RandomSearch
from cpmlho.tuning.method import Method
from cpmlho.tuning.problem import Problem
from cpmlho.tuning.trials import Proposals, search


def random_search(problem: Problem, settings: RandomSearch) -> Method:
    """Train `trials` independent points."""
    return search(problem, propose(problem, settings))


def propose(problem: Problem, settings: RandomSearch) -> Proposals:
    """Uniform points of the unit cube."""
    generator = problem.streams().host("search")
    for _ in range(settings.trials):
        yield torch.rand(len(problem.space.names), generator=generator)
