"""CPMLHO: hyperparameters of a neural network tuned while it trains, and a replication of the paper that proposed it.

`core` holds the methods, in torch alone; `study` the replication, whose data flow one way: protocol -> data -> runs ->
result files -> report, with `tracking` a view of the files.

Symbols, as in the paper where it has them:
    B          examples in a batch
    n          number of hyperparameters
    lam        lambda, the unconstrained hyperparameters (n,); value = low + (high - low) sigmoid(lambda)
    delta      displacement of lambda, (B, n), one row an example
    epsilon    perturbation of lambda, normal with standard deviation sigma = softplus(rho)
    W, b       general weight (w_e) and bias of a layer
    R, r       response weight (w_h2) and response bias
    H          hyperparameter map (w_h1), (2 out, n): H_w scales R's rows, H_b scales r
    w_h        (H_w lambda) R, row by row
    g, phi, mu distance |w_e - w_h|, a cutting plane, its multiplier
    theta      weight of the validation loss in the mixed-level objective

R1, R2, ... number the readings of what the paper leaves open; docs/readings.md lists them.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpmlho.core.augment import Dropout, cross_entropy, cutout, noise, shift
    from cpmlho.core.checks import TunerWarning
    from cpmlho.core.history import Update, replay
    from cpmlho.core.net import Net
    from cpmlho.core.options import CPMLHO, STN, DeltaSTN
    from cpmlho.core.spaces import LogUniform, Uniform, Values
    from cpmlho.core.tuner import Tuner

__all__ = [
    "CPMLHO",
    "STN",
    "DeltaSTN",
    "Dropout",
    "LogUniform",
    "Net",
    "Tuner",
    "TunerWarning",
    "Uniform",
    "Update",
    "Values",
    "cross_entropy",
    "cutout",
    "noise",
    "replay",
    "shift",
]

_MODULES = {
    **dict.fromkeys(("CPMLHO", "DeltaSTN", "STN"), "options"),
    **dict.fromkeys(("Uniform", "LogUniform", "Values"), "spaces"),
    **dict.fromkeys(("Dropout", "cross_entropy", "cutout", "noise", "shift"), "augment"),
    **dict.fromkeys(("Update", "replay"), "history"),
    "Net": "net",
    "Tuner": "tuner",
    "TunerWarning": "checks",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for: the command line need not wait for torch."""
    if name == "__version__":
        return version("cpmlho")
    if name not in _MODULES:
        raise AttributeError(f"module 'cpmlho' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"cpmlho.core.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
