"""The registry of methods: to add one, add its file, its line here and its settings in `cpmlho.settings`."""

from collections.abc import Callable
from typing import Any

from cpmlho.tuning.method import Method, Past
from cpmlho.tuning.methods.bayesian_optimization import bayesian_optimization
from cpmlho.tuning.methods.cpmlho import cpmlho
from cpmlho.tuning.methods.delta_stn import delta_stn
from cpmlho.tuning.methods.fixed import fixed
from cpmlho.tuning.methods.random_search import random_search
from cpmlho.tuning.problem import Problem

METHODS: dict[str, Callable[[Problem, Any, Past], Method]] = {
    "random_search": random_search,
    "bayesian_optimization": bayesian_optimization,
    "fixed": fixed,
    "delta_stn": delta_stn,
    "cpmlho": cpmlho,
}
