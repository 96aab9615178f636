"""Delta-STN (Bae and Grosse 2020): a centred, linearised response; STN (MacKay et al. 2019) with `response: stn`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpmlho.core.events import FRESH, Method, Past
from cpmlho.core.options import Response
from cpmlho.study.methods.registry import method

if TYPE_CHECKING:
    from cpmlho.core.problem import Conditions, Problem


def gradients(options: Response) -> float:
    """A general and a response step each iteration, and a validation batch's each hyperparameter step."""
    return 2 + options.valid_steps / options.train_steps


@method(Response, kind="schedule", label="Δ-STN", colour="#D55E00", line="--", gradients=gradients)
def delta_stn(problem: Problem, conditions: Conditions, options: Response, past: Past = FRESH) -> Method:
    """Train and tune by the validation loss alone."""
    from cpmlho.core.alternating import alternate

    return alternate(problem, conditions, options, past)
