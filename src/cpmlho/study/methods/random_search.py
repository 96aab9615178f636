"""Random search (Bergstra and Bengio 2012): values uniform over their ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpmlho.core.events import FRESH, Method, Past
from cpmlho.core.options import Search
from cpmlho.study.methods.registry import method

if TYPE_CHECKING:
    from torch import Tensor

    from cpmlho.core.problem import Conditions, Problem


@method(Search, kind="search", label="RS", colour="#E69F00", line=":")
def random_search(problem: Problem, conditions: Conditions, options: Search, past: Past = FRESH) -> Method:
    """Train `trials` independent points, side by side where there are workers."""
    from cpmlho.core.trials import fraction, search_all

    points = draw(problem, conditions, options)
    return search_all(problem, conditions, [fraction(options, point) for point in points], past)


def draw(problem: Problem, conditions: Conditions, options: Search) -> list[Tensor]:
    """Uniform points of the unit cube, the start values before them if they are asked for."""
    import torch

    from cpmlho.core.trials import start_point

    generator = conditions.streams(problem).host("search")
    points = [torch.rand(len(problem.space.names), generator=generator) for _ in range(options.trials)]
    return [start_point(problem, options), *points][: options.trials] if options.from_start else points
