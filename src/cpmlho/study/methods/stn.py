"""STN (MacKay et al. 2019): the response of eq. 3, neither centred nor linearised (R4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpmlho.core.options import STN
from cpmlho.study.events import FRESH, Method, Past
from cpmlho.study.registry import gradients_of_response, method

if TYPE_CHECKING:
    from cpmlho.study.problem import Budget, Problem


@method(STN, kind="schedule", label="STN", colour="#CC79A7", line="--", gradients=gradients_of_response)
def stn(problem: Problem, budget: Budget, options: STN, past: Past = FRESH) -> Method:
    """Train and tune; the validation loss alone is the upper objective."""
    from cpmlho.study.methods.response import train_and_tune

    return train_and_tune(problem, budget, options, past)
