"""CPMLHO: Delta-STN's response (R4), cutting planes on it and a mixed-level upper objective."""

from __future__ import annotations

from cpmlho.core.alternating import alternate
from cpmlho.core.events import FRESH, Method, Past
from cpmlho.core.planes import CuttingPlanes
from cpmlho.core.problem import Problem
from cpmlho.study.settings import Cpmlho


def cpmlho(problem: Problem, settings: Cpmlho, past: Past = FRESH) -> Method:
    """Train and tune; with both parts switched off this is Delta-STN to the last bit."""
    planes = CuttingPlanes(settings, problem.device) if settings.cutting_planes else None
    return alternate(problem, settings, past, theta=settings.theta if settings.mixed_level else None, planes=planes)
