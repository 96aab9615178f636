"""STN (MacKay et al. 2019): the response of eq. 3, neither centred nor linearised (R4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpmlho.core.events import FRESH, Method, Past
from cpmlho.core.options import STN
from cpmlho.study.methods.registry import gradients_of_response, method

if TYPE_CHECKING:
    from cpmlho.core.problem import Conditions, Problem


@method(STN, kind="schedule", label="STN", colour="#CC79A7", line="--", gradients=gradients_of_response)
def stn(problem: Problem, conditions: Conditions, options: STN, past: Past = FRESH) -> Method:
    """Train and tune by the validation loss alone."""
    from cpmlho.core.alternating import Alternation
    from cpmlho.core.schedule import alternate

    return alternate(Alternation(problem, conditions, options), past)
