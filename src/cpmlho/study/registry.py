"""What the study knows of datasets and networks, declared where each is written. No torch, no numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpmlho.core.options import Options, least

if TYPE_CHECKING:
    from torch import nn

    from cpmlho.study.arrays import Arrays

Shape = tuple[int, ...]  # of an example: (features,) or (channels, height, width)
CUTOUT = ("cutout_length", "cutout_holes")  # hyperparameters of a network for images; any other is a rate of dropout


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(Options):
    """Options of any network.

    Attributes:
        output_units: classes, or more than there are.
    """

    output_units: int = least(2, 10)


@dataclass(frozen=True)
class NetworkKind:
    """A kind of network.

    Attributes:
        build: the network from `inputs`, the shape of an example, and each option by its name; imports torch when it
            is called.
        options: dataclass of its options.
        hyperparameters: names of those that it has a place for, given its options.
        label: its name in tables.
        cost: of a training step, in steps of the paper's MLP, roughly.
    """

    build: Callable[..., nn.Module]
    options: type[NetworkOptions]
    hyperparameters: Callable[[Any], tuple[str, ...]]
    label: str
    cost: float


@dataclass(frozen=True)
class Reader:
    """How a dataset comes into memory.

    Attributes:
        read: its arrays from its folder, `<data.dir>/<folder>`, which need not exist.
        label: its name in tables and figures, and of its folder, where the configuration names none.
    """

    read: Callable[[Path], Arrays]
    label: str


NETWORKS: dict[str, NetworkKind] = {}
READERS: dict[str, Reader] = {}


def network(
    options: type[NetworkOptions], *, hyperparameters: Callable[[Any], tuple[str, ...]], label: str, cost: float = 1.0
) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Register the decorated function under its own name; arguments as `NetworkKind`.

    Raises:
        ValueError: there is such a network already.
    """

    def register(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        if build.__name__ in NETWORKS:
            raise ValueError(f"{build.__name__}: there is a network of this name already")
        NETWORKS[build.__name__] = NetworkKind(build, options, hyperparameters, label, cost)
        return build

    return register


def dataset(*, label: str) -> Callable[[Callable[[Path], Arrays]], Callable[[Path], Arrays]]:
    """Register the decorated function under its own name; arguments as `Reader`.

    Raises:
        ValueError: there is such a dataset already.
    """

    def register(read: Callable[[Path], Arrays]) -> Callable[[Path], Arrays]:
        if read.__name__ in READERS:
            raise ValueError(f"{read.__name__}: there is a dataset of this name already")
        READERS[read.__name__] = Reader(read, label)
        return read

    return register
