"""CPMLHO as eqs. 3, 13 and 14 are written: with STN's uncentred response (R4), trained in two steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpmlho.core.options import CPMLHOUncentred
from cpmlho.study.events import FRESH, Method, Past
from cpmlho.study.registry import gradients_of_response, method

if TYPE_CHECKING:
    from cpmlho.study.problem import Budget, Problem


@method(CPMLHOUncentred, kind="schedule", label="CPMLHO, uncentred", colour="#2E96D6", gradients=gradients_of_response)
def cpmlho_uncentred(problem: Problem, budget: Budget, options: CPMLHOUncentred, past: Past = FRESH) -> Method:
    """Train and tune with cutting planes and a mixed-level upper objective."""
    from cpmlho.study.methods.response import train_and_tune

    return train_and_tune(problem, budget, options, past)
