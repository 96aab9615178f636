"""What the study knows of a method, declared in the method's own file. No torch."""

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
    """A method: how it trains, what it can be told, how it is named and drawn, what it costs.

    Attributes:
        train: generator of events from (problem, budget, options, past); imports torch when it is called.
        options: dataclass of its options, with defaults.
        kind: `search`, whose snapshots are `options.trials` trials; `schedule`, which tunes while it trains; `fixed`,
            one training at fixed values, those of `options.values_of` if it names a method.
        label: its name in tables and figures.
        colour: of its lines.
        line: their style, as matplotlib writes it.
        gradients: gradients of a batch's loss for each training iteration, given its options.
        trainings: whole trainings that a run takes, given its options; None: one a trial, or one.
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
        """The name in the configuration."""
        return self.train.__name__


METHODS: dict[str, Method] = {}


def gradients_of_response(options: ResponseOptions) -> float:
    """A general and a response step each iteration, or one of both, and each hyperparameter step's batches."""
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
    """Register the decorated generator function under its own name; arguments as `Method`.

    Raises:
        ValueError: there is such a method already, or options and kind do not fit.
    """

    def register(train: Callable[..., Events]) -> Callable[..., Events]:
        if train.__name__ in METHODS:
            raise ValueError(f"{train.__name__}: there is a method of this name already")
        if (kind == "search") != issubclass(options, Search):
            raise ValueError(f"{train.__name__}: the options of a search, and of no other, are a `Search`")
        METHODS[train.__name__] = Method(train, options, kind, label, colour, line, gradients, trainings)
        return train

    return register
