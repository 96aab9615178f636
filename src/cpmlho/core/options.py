"""What each method can be told, with defaults. No torch: whoever reads a protocol need not wait for it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints


def above(bound: float, default: float) -> Any:
    """A number greater than `bound`."""
    return field(default=default, metadata={"above": bound})


def least(bound: float, default: float) -> Any:
    """A number that is `bound` or greater."""
    return field(default=default, metadata={"least": bound})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of any method.

    Raises:
        ValueError: a value is not among those that its field allows; the message names the field.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for each in fields(self):
            value, allowed = getattr(self, each.name), hints[each.name]
            if get_origin(allowed) is Literal and value not in get_args(allowed):
                raise ValueError(f"{each.name} must be one of {', '.join(map(str, get_args(allowed)))}, got {value!r}")
            if value is None:
                continue
            bound = each.metadata.get("above")
            if bound is not None and not bound < value < float("inf"):
                raise ValueError(f"{each.name} must be a number greater than {bound}, got {value!r}")
            bound = each.metadata.get("least")
            if bound is not None and not bound <= value < float("inf"):
                raise ValueError(f"{each.name} must be a number of at least {bound}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Training(Options):
    """The lower level's training, which all methods share: plain SGD, as eqs. 13 and 14 are written."""

    batch_size: int = least(1, 128)
    learning_rate: float = above(0, 0.01)


@dataclass(frozen=True, kw_only=True)
class Search(Options):
    """Options of a search: `trials` full trainings at fixed values (R11)."""

    trials: int = least(1, 10)


@dataclass(frozen=True, kw_only=True)
class BayesianOptimization(Search):
    """Options of Bayesian optimisation; `initial_trials` are drawn at random before the Gaussian process decides."""

    initial_trials: int = least(1, 5)


@dataclass(frozen=True, kw_only=True)
class Fixed(Options):
    """Options of training without tuning: at the start values, or at those that another method's run ended at."""

    values_of: str | None = None


@dataclass(frozen=True, kw_only=True)
class Response(Options):
    """Options that the methods with a response hypernetwork share.

    Attributes:
        train_steps: training iterations between hyperparameter updates.
        valid_steps: hyperparameter steps an update.
        hyper_learning_rate: of RMSprop, on lambda and on the perturbation scale.
        entropy_weight: of the perturbation's entropy in the upper level.
        perturbation_scale: sigma at the start, in lambda's units.
        response: `delta_stn`, centred and linearised, or `stn`, neither (R4).
    """

    train_steps: int = least(1, 5)
    valid_steps: int = least(1, 1)
    hyper_learning_rate: float = above(0, 0.01)
    entropy_weight: float = least(0, 0.001)
    perturbation_scale: float = above(0, 1.0)
    response: Literal["delta_stn", "stn"] = "delta_stn"


@dataclass(frozen=True, kw_only=True)
class CPMLHO(Response):
    """Options of CPMLHO.

    Attributes:
        cutting_planes: whether planes constrain the response (eqs. 10-14).
        g: |w_e - w_h| (R2).
        wh_at: w_h at lambda itself, or at the hyperparameters' values (R3).
        cut_every: epochs between planes (R5).
        multiplier: mu <- max(0, mu + dual_step phi) at each hyperparameter update, or fixed (R6).
        mu_init: of a new plane.
        dual_step: of the dual ascent.
        max_planes: the newest are kept.
        eps_sq: epsilon squared of eq. 11 (R7).
        mixed_level: whether the upper level has the training loss too (eqs. 15-16).
        theta: weight of the validation loss (R8).
    """

    cutting_planes: bool = True
    g: Literal["l2", "l1", "mean_l1"] = "l2"
    wh_at: Literal["raw", "value"] = "raw"
    cut_every: int = least(1, 1)
    multiplier: Literal["dual_ascent", "fixed"] = "dual_ascent"
    mu_init: float = above(0, 0.22)
    dual_step: float = above(0, 1.0e-6)
    max_planes: int = least(1, 3)
    eps_sq: float = least(0, 1.0e-4)
    mixed_level: bool = True
    theta: float = least(0, 1.0)
