"""The registry of methods. Each method's own file declares its entry; this module does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cpmlho.core.options import CPMLHO, Options, ResponseOptions, Search

if TYPE_CHECKING:
    from cpmlho.study.events import Method as Events

Kind = Literal["search", "schedule", "fixed"]


@dataclass(frozen=True)
class Method:
    """A method: its training, its options, its name and style in tables and figures, and its cost.

    Attributes:
        train: generator function (problem, budget, options, past) of events; it imports torch when called.
        options: dataclass of its options, with defaults.
        kind: `search`: a run yields `options.trials` snapshots, one per trial; `schedule`: it tunes while it trains;
            `fixed`: one training at fixed values, those of `options.values_of` if it names a method.
        label: name in tables and figures.
        colour: colour of its lines.
        line: matplotlib style of its lines.
        gradients: number of batch gradients per training iteration, given the options.
        trainings: number of full trainings in a run, given the options; None: one per trial, or one.
    """

    train: Callable[..., Events]
    options: type[Options]
    kind: Kind
    label: str
    colour: str
    line: str
    gradients: Callable[[Any], float]
    trainings: Callable[[Any], float] | None

    @property
    def name(self) -> str:
        """Name in the configuration."""
        return self.train.__name__


METHODS: dict[str, Method] = {}


def gradients_of_response(options: ResponseOptions) -> float:
    """Return the batch gradients per training iteration of a response method.

    An iteration has a step of the weights and one of the response, or a joint one. Each hyperparameter step adds a
    validation batch, and a training batch with the mixed level.
    """
    batches = 2 if isinstance(options, CPMLHO) and options.mixed_level else 1
    return (1 if options.response == "stn_joint" else 2) + options.valid_steps * batches / options.train_steps


def method(
    options: type[Options],
    *,
    kind: Kind,
    label: str,
    colour: str,
    line: str = "-",
    gradients: Callable[[Any], float] = lambda options: 1.0,
    trainings: Callable[[Any], float] | None = None,
) -> Callable[[Callable[..., Events]], Callable[..., Events]]:
    """Return a decorator that registers a generator function under its own name; the arguments are those of `Method`.

    Raises:
        ValueError: the name is taken, or the options do not fit the kind.
    """

    def register(train: Callable[..., Events]) -> Callable[..., Events]:
        if train.__name__ in METHODS:
            raise ValueError(f"{train.__name__}: a method of this name exists already")
        if (kind == "search") != issubclass(options, Search):
            raise ValueError(f"{train.__name__}: options derive from `Search` if and only if the kind is search")
        METHODS[train.__name__] = Method(train, options, kind, label, colour, line, gradients, trainings)
        return train

    return register
