"""Delta-STN (Bae and Grosse 2020): a centred, linearised response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpmlho.core.options import ResponseOptions
from cpmlho.study.events import FRESH, Method, Past
from cpmlho.study.registry import gradients_of_response, method

if TYPE_CHECKING:
    from cpmlho.study.problem import Budget, Problem


@method(ResponseOptions, kind="schedule", label="Δ-STN", colour="#D55E00", line="--", gradients=gradients_of_response)
def delta_stn(problem: Problem, budget: Budget, options: ResponseOptions, past: Past = FRESH) -> Method:
    """Train and tune; the validation loss alone is the upper objective."""
    from cpmlho.study.methods.response import train_and_tune

    return train_and_tune(problem, budget, options, past)
