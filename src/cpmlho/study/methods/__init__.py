"""The registry of methods: to add one, add its file, its line here and its settings in `cpmlho.study.settings`."""

from collections.abc import Callable
from typing import Any

from cpmlho.core.events import Method, Past
from cpmlho.core.problem import Problem
from cpmlho.study.methods.bayesian_optimization import bayesian_optimization
from cpmlho.study.methods.cpmlho import cpmlho
from cpmlho.study.methods.delta_stn import delta_stn
from cpmlho.study.methods.fixed import fixed
from cpmlho.study.methods.random_search import random_search

METHODS: dict[str, Callable[[Problem, Any, Past], Method]] = {
    "random_search": random_search,
    "bayesian_optimization": bayesian_optimization,
    "fixed": fixed,
    "delta_stn": delta_stn,
    "cpmlho": cpmlho,
}
