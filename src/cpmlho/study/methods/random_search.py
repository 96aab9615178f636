"""Random search (Bergstra and Bengio 2012): values uniform over their ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpmlho.core.options import Search
from cpmlho.study.events import FRESH, Method, Past
from cpmlho.study.registry import method

if TYPE_CHECKING:
    from torch import Tensor

    from cpmlho.study.problem import Budget, Problem


@method(Search, kind="search", label="RS", colour="#B57A00", line=":")
def random_search(problem: Problem, budget: Budget, options: Search, past: Past = FRESH) -> Method:
    """Train `trials` independent points, in parallel if there are workers."""
    from cpmlho.study.trials import fraction, search_all

    points = draw(problem, budget, options)
    return search_all(problem, budget, [fraction(options, point) for point in points], past)


def draw(problem: Problem, budget: Budget, options: Search) -> list[Tensor]:
    """Return uniform points of the unit cube, preceded by the start values if `from_start` is set."""
    import torch

    from cpmlho.study.trials import start_point

    generator = budget.streams(problem).host("search")
    points = [torch.rand(len(problem.space), generator=generator) for _ in range(options.trials)]
    return [start_point(problem, options), *points][: options.trials] if options.from_start else points
