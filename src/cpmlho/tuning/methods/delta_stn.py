"""Delta-STN (Bae and Grosse 2020): a centred, linearised response; STN (MacKay et al. 2019) with `response: stn`."""

from __future__ import annotations

from cpmlho.settings import DeltaStn
from cpmlho.tuning.alternating import alternate
from cpmlho.tuning.method import FRESH, Method, Past
from cpmlho.tuning.problem import Problem


def delta_stn(problem: Problem, settings: DeltaStn, past: Past = FRESH) -> Method:
    """Train and tune by the validation loss alone."""
    return alternate(problem, settings, past)
