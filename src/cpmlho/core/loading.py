"""Batches of any structure: how many examples they have, where they lie, and a loader that never ends."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def rows(batch: Any) -> int:
    """How many examples a batch has: the length that its tensors share.

    Raises:
        ValueError: they share none.
    """
    leaves = pytree.tree_leaves(dict(batch) if isinstance(batch, Mapping) else batch)
    found = {len(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()}
    if len(found) != 1:
        what = f"lengths {', '.join(map(str, sorted(found)))}" if found else f"no tensor in a {type(batch).__name__}"
        raise ValueError(f"cannot tell how many examples a batch has ({what}): give Tuner rows=lambda batch: ...")
    return found.pop()


def move(batch: Any, device: torch.device) -> Any:
    """The same structure with its tensors on `device`; whatever has a method `to` moves itself."""

    def leaf(each: Any) -> Any:
        if hasattr(each, "to"):
            return each.to(device)
        return move(dict(each), device) if isinstance(each, Mapping) else each

    return pytree.tree_map(leaf, batch)


class Endless:
    """A loader's batches, restarted when exhausted.

    A loader with `state_dict` and `load_state_dict` (torchdata's StatefulDataLoader) keeps its own state. For any other
    the state is the number of batches taken in this pass, and the randomness with which the pass began.
    """

    def __init__(self, name: str, loader: Iterable[Any]) -> None:
        self._name, self._loader, self._once = name, loader, isinstance(loader, Iterator)
        self._batches: Iterator[Any] | None = None
        self._begun: list[Tensor] = []
        self._taken = 0

    def peek(self) -> Any:
        """The first batch, before any is taken; the loader's randomness and torch's stay where they are.

        None if there is no batch, or looking at it would change what the loader gives.
        """
        if self._batches is not None or getattr(self._loader, "persistent_workers", False):
            return None
        kept = [(each, each.get_state()) for each in self._generators()]
        with torch.random.fork_rng(devices=[]):
            batches = iter(self._loader)
            found = next(batches, None)
        for generator, state in kept:
            generator.set_state(state)
        if batches is self._loader and found is not None:  # an iterator gives each batch once
            self._loader = itertools.chain([found], batches)
        return found

    def __next__(self) -> Any:
        for _ in range(2):
            if self._batches is None:
                self._begin()
            assert self._batches is not None
            for batch in self._batches:
                self._taken += 1
                return batch
            self._batches = None
        what = "; an iterator gives each batch once: give the loader itself, or a list" if self._once else ""
        raise ValueError(f"{self._name} gives no batch; it must give at least one in each pass{what}")

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        if self._stateful:
            return {"loader": self._loader.state_dict()}  # type: ignore[attr-defined]
        return {"taken": self._taken if self._batches is not None else None, "begun": list(self._begun)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there; this uses up torch's global randomness."""
        self._batches, self._taken = None, 0
        if self._stateful:
            self._loader.load_state_dict(state["loader"])  # type: ignore[attr-defined]
        elif state["taken"] is not None:
            torch.set_rng_state(state["begun"][0])
            for generator, begun in zip(self._generators(), state["begun"][1:], strict=True):
                generator.set_state(begun)
            self._begin()
            for _ in range(state["taken"]):
                next(self)

    @property
    def _stateful(self) -> bool:
        return hasattr(self._loader, "state_dict") and hasattr(self._loader, "load_state_dict")

    def _begin(self) -> None:
        self._begun = [torch.get_rng_state(), *(generator.get_state() for generator in self._generators())]
        self._batches, self._taken = iter(self._loader), 0

    def _generators(self) -> list[torch.Generator]:
        places = (self._loader, getattr(self._loader, "sampler", None))
        found = [generator for place in places if (generator := getattr(place, "generator", None)) is not None]
        return list({id(generator): generator for generator in found}.values())
