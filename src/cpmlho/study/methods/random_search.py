"""Random search (Bergstra and Bengio 2012): values uniform over their ranges."""

from __future__ import annotations

import torch
from torch import Tensor

from cpmlho.core.events import FRESH, Method, Past
from cpmlho.core.problem import Problem
from cpmlho.core.trials import search_all
from cpmlho.study.settings import RandomSearch


def random_search(problem: Problem, settings: RandomSearch, past: Past = FRESH) -> Method:
    """Train `trials` independent points, side by side where there are workers."""
    return search_all(problem, draw(problem, settings), past)


def draw(problem: Problem, settings: RandomSearch) -> list[Tensor]:
    """Uniform points of the unit cube."""
    generator = problem.streams().host("search")
    return [torch.rand(len(problem.space.names), generator=generator) for _ in range(settings.trials)]
