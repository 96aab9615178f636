"""CPMLHO on Delta-STN's response (R4): cutting planes on it and a mixed-level upper objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpmlho.core.events import FRESH, Method, Past
from cpmlho.core.options import CPMLHO
from cpmlho.study.methods.registry import gradients_of_response, method

if TYPE_CHECKING:
    from cpmlho.core.problem import Conditions, Problem


@method(CPMLHO, kind="schedule", label="CPMLHO", colour="#0072B2", gradients=gradients_of_response)
def cpmlho(problem: Problem, conditions: Conditions, options: CPMLHO, past: Past = FRESH) -> Method:
    """Train and tune; with both parts switched off this is Delta-STN, or STN, to the last bit."""
    from cpmlho.core.alternating import Alternation
    from cpmlho.core.planes import CuttingPlanes
    from cpmlho.core.schedule import alternate

    layers = len(problem.network.layers)
    planes = CuttingPlanes(options, layers, problem.device) if options.cutting_planes else None
    theta = options.theta if options.mixed_level else None
    return alternate(Alternation(problem, conditions, options, theta, planes, options.upper_regularised), past)
