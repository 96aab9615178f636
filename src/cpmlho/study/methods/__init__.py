"""The methods, one file each, in the order of tables and figures."""

from cpmlho.study.methods import random_search  # isort: skip
from cpmlho.study.methods import bayesian_optimization  # isort: skip
from cpmlho.study.methods import fixed  # isort: skip
from cpmlho.study.methods import stn  # isort: skip
from cpmlho.study.methods import delta_stn  # isort: skip
from cpmlho.study.methods import cpmlho  # isort: skip
from cpmlho.study.methods import cpmlho_uncentred  # isort: skip
from cpmlho.study.registry import METHODS, Method, method

__all__ = [
    "METHODS",
    "Method",
    "bayesian_optimization",
    "cpmlho",
    "cpmlho_uncentred",
    "delta_stn",
    "fixed",
    "method",
    "random_search",
    "stn",
]
