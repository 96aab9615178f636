"""The registries of methods, networks and datasets, and their decorators. It imports neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar

from cpmlho.core.options import CPMLHO, Options, ResponseOptions, Search, least

if TYPE_CHECKING:
    from torch import nn

    from cpmlho.study.arrays import Arrays
    from cpmlho.study.events import Method as Events

P = ParamSpec("P")
Entry = TypeVar("Entry")
Function = TypeVar("Function", bound=Callable[..., Any])
Shape = tuple[int, ...]  # of an example: (features,) or (channels, height, width)
CUTOUT = ("cutout_length", "cutout_holes")  # hyperparameters of a network for images; any other is a rate of dropout


class Registry(dict[str, Entry], Generic[P, Entry]):
    """Entries by name, in the order in which they were registered.

    Args:
        what: the noun for an entry in messages.
        entry: returns the entry for a decorated function and the arguments of its decorator.
    """

    def __init__(self, what: str, entry: Callable[Concatenate[Callable[..., Any], P], Entry]) -> None:
        super().__init__()
        self._what, self._entry = what, entry

    def register(self, *args: P.args, **kwargs: P.kwargs) -> Callable[[Function], Function]:
        """Return a decorator that registers a function under its own name, with these arguments of its entry.

        Raises:
            ValueError: the name is taken, or the arguments contradict each other.
        """

        def decorate(function: Function) -> Function:
            name = function.__name__
            if name in self:
                raise ValueError(f"{name}: a {self._what} of this name exists already")
            self[name] = self._entry(function, *args, **kwargs)
            return function

        return decorate


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
    _: KW_ONLY
    kind: Literal["search", "schedule", "fixed"]
    label: str
    colour: str
    line: str = "-"
    gradients: Callable[[Any], float] = lambda options: 1.0
    trainings: Callable[[Any], float] | None = None

    def __post_init__(self) -> None:
        if (self.kind == "search") != issubclass(self.options, Search):
            raise ValueError(f"{self.train.__name__}: options derive from `Search` if and only if the kind is search")


def gradients_of_response(options: ResponseOptions) -> float:
    """Return the batch gradients per training iteration of a response method.

    An iteration has a step of the weights and one of the response, or a joint one. Each hyperparameter step adds a
    validation batch, and a training batch with the mixed level.
    """
    batches = 2 if isinstance(options, CPMLHO) and options.mixed_level else 1
    return (1 if options.response == "stn_joint" else 2) + options.valid_steps * batches / options.train_steps


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(Options):
    """Options of any network.

    Attributes:
        output_units: number of classes, or more.
    """

    output_units: int = least(2, 10)


@dataclass(frozen=True)
class NetworkKind:
    """A kind of network.

    Attributes:
        build: builds the network from `inputs`, the shape of an example, and each option by its name; it imports torch
            when called.
        options: dataclass of its options.
        hyperparameters: names of the hyperparameters that it can have, given its options.
        label: name in tables.
        cost: rough cost of a training step, in steps of the paper's MLP.
    """

    build: Callable[..., nn.Module]
    options: type[NetworkOptions]
    _: KW_ONLY
    hyperparameters: Callable[[Any], tuple[str, ...]]
    label: str
    cost: float = 1.0


@dataclass(frozen=True)
class Reader:
    """How a dataset is read into memory.

    Attributes:
        read: returns its arrays from its folder, `<data.dir>/<folder>`, which need not exist.
        label: name in tables and figures, and of the folder if the configuration names none.
    """

    read: Callable[[Path], Arrays]
    _: KW_ONLY
    label: str


METHODS = Registry("method", Method)
NETWORKS = Registry("network", NetworkKind)
READERS = Registry("dataset", Reader)
method, network, dataset = METHODS.register, NETWORKS.register, READERS.register
