"""CPMLHO: Delta-STN's response (R4), cutting planes on it and a mixed-level upper objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpmlho.core.events import FRESH, Method, Past
from cpmlho.core.options import CPMLHO
from cpmlho.study.methods.registry import method

if TYPE_CHECKING:
    from cpmlho.core.problem import Conditions, Problem


def gradients(options: CPMLHO) -> float:
    """As Delta-STN's, and a training batch's each hyperparameter step of the mixed level."""
    return 2 + options.valid_steps * (2 if options.mixed_level else 1) / options.train_steps


@method(CPMLHO, kind="schedule", label="CPMLHO", colour="#0072B2", gradients=gradients)
def cpmlho(problem: Problem, conditions: Conditions, options: CPMLHO, past: Past = FRESH) -> Method:
    """Train and tune; with both parts switched off this is Delta-STN to the last bit."""
    from cpmlho.core.alternating import alternate
    from cpmlho.core.planes import CuttingPlanes

    planes = CuttingPlanes(options, problem.device) if options.cutting_planes else None
    theta = options.theta if options.mixed_level else None
    return alternate(problem, conditions, options, past, theta=theta, planes=planes)
