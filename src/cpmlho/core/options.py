"""What each method can be told, with defaults. No torch: whoever reads a protocol need not wait for it."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from math import inf
from operator import ge, gt
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

_hints = cache(get_type_hints)


def above(bound: float, default: float | None) -> Any:
    """A number greater than `bound`, or None where that is the default."""
    return field(default=default, metadata={"holds": gt, "bound": bound, "words": "a number greater than"})


def least(bound: float, default: Any = MISSING) -> Any:
    """A number that is `bound` or greater, or None where that is the default; without a default, it must be given."""
    return field(default=default, metadata={"holds": ge, "bound": bound, "words": "a number of at least"})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of any method.

    Raises:
        ValueError: a value is not among those that its field allows; the message begins with the field's name.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}  # when settings are read

    def __post_init__(self) -> None:
        kind: Any = type(self)  # hashable, which mypy doubts
        hints = _hints(kind)
        for each in fields(self):
            value, rule = getattr(self, each.name), each.metadata
            if get_origin(hints[each.name]) is Literal and value not in (choices := get_args(hints[each.name])):
                raise ValueError(f"{each.name} must be one of {', '.join(map(str, choices))}, got {value!r}")
            if rule and value is not None and not (rule["holds"](value, rule["bound"]) and value < inf):
                raise ValueError(f"{each.name} must be {rule['words']} {rule['bound']}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Training(Options):
    """The lower level's training, which all methods share.

    Attributes:
        batch_size: examples in a batch.
        learning_rate: of SGD.
        momentum: of SGD; 0 as eqs. 13 and 14 are written (R19).
    """

    batch_size: int = least(1, 128)
    learning_rate: float = above(0, 0.01)
    momentum: float = least(0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Search(Options):
    """Options of a search (R11).

    Attributes:
        trials: full trainings at fixed values.
        prior: values uniform over their ranges, or `logit`: lambda uniform in [-5, 5].
        from_start: whether the first trial is at the start values, where the methods that tune begin.
    """

    trials: int = least(1, 10)
    prior: Literal["uniform", "logit"] = "uniform"
    from_start: bool = False


@dataclass(frozen=True, kw_only=True)
class BayesianOptimization(Search):
    """Options of Bayesian optimisation; `initial_trials` are drawn at random before the Gaussian process decides."""

    initial_trials: int = least(1, 5)


@dataclass(frozen=True, kw_only=True)
class Fixed(Options):
    """Options of training without tuning: at the start values, or at those that another method's run ended at."""

    values_of: str | None = None


ResponseKind = Literal["delta_stn", "stn", "stn_joint", "temperature"]


@dataclass(frozen=True, kw_only=True)
class ResponseOptions(Options):
    """Options that the methods with a response hypernetwork share.

    Attributes:
        train_steps: training iterations between hyperparameter updates.
        valid_steps: hyperparameter steps an update.
        hyper_learning_rate: of RMSprop, on lambda and on the perturbation scale.
        entropy_weight: of the perturbation's entropy in the upper level.
        perturbation_scale: sigma at the start, in lambda's units.
        response: `delta_stn`, centred and linearised; `stn`, neither, in two steps (eqs. 3, 13, 14 as written);
            `stn_joint`, neither, w_e and w_h in one step (R4); `temperature`, centred, the outputs times 1 + h delta
            with one number h for each hyperparameter and no response of the weights.
        response_start: R and r start like PyTorch's layers (`random`), or at W and b (`weights`).
        response_weights: R and r train (`free`), stay as they started (`frozen`), are set to W and b after each
            iteration (`tied`), or follow them as an exponential mean with decay 0.99 (`mean`). H trains in any case.
        warm_up: epochs before the first hyperparameter step (R18).
        warm_up_steps: training iterations before it, in addition.
        response_learning_rate: of w_h, alpha_wh in eq. 14; None: the lower level's (R21).
        bias_correction: whether RMSprop's mean of squares is corrected for its start at 0. Without it the first
            hyperparameter steps are up to ten times `hyper_learning_rate`, however small the gradient.
    """

    train_steps: int = least(1, 5)
    valid_steps: int = least(1, 1)
    hyper_learning_rate: float = above(0, 0.01)
    entropy_weight: float = least(0, 0.001)
    perturbation_scale: float = above(0, 1.0)
    response: ResponseKind = "delta_stn"
    response_start: Literal["random", "weights"] = "random"
    response_weights: Literal["free", "frozen", "tied", "mean"] = "free"
    warm_up: int = least(0, 0)
    warm_up_steps: int = least(0, 0)
    response_learning_rate: float | None = above(0, None)
    bias_correction: bool = False


@dataclass(frozen=True, kw_only=True)
class DeltaSTN(ResponseOptions):
    """Delta-STN (Bae and Grosse 2020): a response centred at the current hyperparameters, and linearised.

    Two defaults differ from the published ones, as they find known optima more reliably (docs/defaults.md): R starts at
    W, and the first hyperparameter steps are corrected for bias. The study uses the published ones.

    Attributes:
        rank: directions in which the weights of an output unit respond: the sum of this many (H_w delta) R. At 1, as
            published, all hyperparameters share one direction for each output unit. Parameters and time grow with it.
    """

    response_start: Literal["random", "weights"] = "weights"
    bias_correction: bool = True
    rank: int = least(1, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.response in ("stn", "stn_joint"):
            raise ValueError(f"response of DeltaSTN must be delta_stn or temperature, got {self.response!r}: use STN()")
        if self.rank > 1 and (self.response == "temperature" or self.response_weights in ("tied", "mean")):
            raise ValueError(
                f"rank must be 1 with response {self.response} and response_weights {self.response_weights}, in which "
                f"no further R has a place, got {self.rank}"
            )


@dataclass(frozen=True, kw_only=True)
class STN(ResponseOptions):
    """Options of STN: the response of eq. 3."""

    response: ResponseKind = "stn"


@dataclass(frozen=True, kw_only=True)
class CPMLHO(ResponseOptions):
    """Options of CPMLHO.

    Attributes:
        cutting_planes: whether planes constrain the response (eqs. 10-14).
        constraint: what is held to w_e: `raw`, (H lambda) R; `value`, the same at the hyperparameters' values;
            `response_weight`, R alone; `displaced`, the (H d) R that the network used at the last response step,
            on the mean over the batch (R3).
        g: distance of the two, |v|: `l2`, `squared` (its square), `l1`, `mean_l1` (R2).
        per_layer: a plane for each layer instead of one for all (R2).
        cut_every: epochs between planes (R5).
        cut_steps: training iterations between planes, in place of epochs; None: `cut_every` (R5).
        multiplier: `fixed` at mu_init; `dual_ascent`, mu <- max(0, mu + dual_step phi) from mu_init at each
            hyperparameter update, where 0 is final; `adbo`, the same from 0 with a damping term that fades (Jiao et
            al. 2023) (R6).
        mu_init: of a new plane.
        dual_step: of the multiplier.
        max_planes: the newest are kept; 1 is eq. 12.
        force: `violated`, a plane pulls only where phi > 0; `always`, also where its constraint holds (R6).
        eps_sq: epsilon squared of eq. 11 (R7).
        mixed_level: whether the upper level has the training loss too (eqs. 15-16).
        theta: weight of the validation loss (R8).
        upper_regularised: whether the upper level's training loss has dropout and cutout, as the lower level's (R22).
    """

    cutting_planes: bool = True
    constraint: Literal["raw", "value", "response_weight", "displaced"] = "response_weight"
    g: Literal["l2", "squared", "l1", "mean_l1"] = "l2"
    per_layer: bool = False
    cut_every: int = least(1, 1)
    cut_steps: int | None = least(1, 50)
    multiplier: Literal["fixed", "dual_ascent", "adbo"] = "fixed"
    mu_init: float = above(0, 0.5)
    dual_step: float = above(0, 0.1)
    max_planes: int = least(1, 1)
    force: Literal["violated", "always"] = "violated"
    eps_sq: float = least(0, 1.0e-4)
    mixed_level: bool = True
    theta: float = least(0, 1.0)
    upper_regularised: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cutting_planes and (self.response == "temperature" or self.response_weights != "free"):
            raise ValueError(
                f"cutting_planes must be false with response {self.response} and response_weights "
                f"{self.response_weights}: the planes act on R, which then does not train"
            )
        replaced = self.max_planes == 1 and self.cut_steps and self.train_steps % self.cut_steps == 0
        if self.multiplier == "adbo" and replaced:
            raise ValueError(
                f"cut_steps must not divide train_steps, {self.train_steps}, with adbo and max_planes 1: "
                f"each plane would go before its multiplier leaves 0, got {self.cut_steps}"
            )


@dataclass(frozen=True, kw_only=True)
class CPMLHOUncentred(CPMLHO):
    """Options of CPMLHO on the response of eq. 3."""

    response: ResponseKind = "stn"
