"""Delta-STN (Bae and Grosse 2020): a centred, linearised response; STN (MacKay et al. 2019) with `response: stn`."""

from __future__ import annotations

from cpmlho.core.alternating import alternate
from cpmlho.core.events import FRESH, Method, Past
from cpmlho.core.problem import Problem
from cpmlho.study.settings import DeltaStn


def delta_stn(problem: Problem, settings: DeltaStn, past: Past = FRESH) -> Method:
    """Train and tune by the validation loss alone."""
    return alternate(problem, settings, past)
