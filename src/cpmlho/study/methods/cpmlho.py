"""CPMLHO (Yang et al. 2022) on Delta-STN's response (R4): cutting planes and a mixed-level upper objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpmlho.core.options import CPMLHO
from cpmlho.study.events import FRESH, Method, Past
from cpmlho.study.registry import gradients_of_response, method

if TYPE_CHECKING:
    from cpmlho.study.problem import Budget, Problem


@method(CPMLHO, kind="schedule", label="CPMLHO", colour="#005083", gradients=gradients_of_response)
def cpmlho(problem: Problem, budget: Budget, options: CPMLHO, past: Past = FRESH) -> Method:
    """Train and tune; with both parts off, a run is bit-identical to Delta-STN's, or STN's by `response`."""
    from cpmlho.study.methods.response import train_and_tune

    return train_and_tune(problem, budget, options, past)
