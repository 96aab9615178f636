"""Variants from axes: each combination of one choice an axis, under a name made of the choices."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from typing import Annotated, Any

from pydantic import Field, model_validator

from cpmlho.study.settings import Identifier, Seeds
from cpmlho.study.strict import Strict

Choices = Annotated[dict[Identifier, dict[str, Any]], Field(min_length=1)]


class Grid(Strict):
    """A grid of variants.

    Attributes:
        axes: by axis and choice, what the choice sets of a variant; later axes are merged over earlier ones.
        datasets: that they run on; None: the protocol's.
        seeds: None: the protocol's.
    """

    axes: Annotated[dict[Identifier, Choices], Field(min_length=1)]
    datasets: Annotated[list[Identifier], Field(min_length=1)] | None = None
    seeds: Seeds | None = None

    @model_validator(mode="after")
    def _base_is_chosen(self) -> Grid:
        if not any(all("base" in choice for choice in axis.values()) for axis in self.axes.values()):
            raise ValueError("axes: one axis must set `base` in each of its choices")
        return self

    def variants(self, grid: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each combination by its name, `GRID_CHOICE_CHOICE`, as the configuration would write it."""
        for chosen in product(*(axis.items() for axis in self.axes.values())):
            content: dict[str, Any] = {"choices": dict(zip(self.axes, (name for name, _ in chosen), strict=True))}
            for _, choice in chosen:
                content = merge(content, choice)
            shared = {"datasets": self.datasets, "seeds": self.seeds}
            content |= {key: value for key, value in shared.items() if value is not None and key not in content}
            yield "_".join([grid, *(name for name, _ in chosen)]), content


def made_by(grids: Mapping[str, Grid], declared: Collection[str]) -> dict[str, dict[str, Any]]:
    """The variants of all grids by name.

    Raises:
        ValueError: a name is among those declared, or is made twice.
    """
    made: dict[str, dict[str, Any]] = {}
    for grid, each in grids.items():
        for name, content in each.variants(grid):
            if name in made or name in declared:
                raise ValueError(f"grids.{grid}: there is a variant {name} already; rename the grid or a choice")
            made[name] = content
    return made


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings key by key; anything else is replaced, and so is what is of another `kind`."""
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        both = both and value.get("kind", result[key].get("kind")) == result[key].get("kind")
        result[key] = merge(result[key], value) if both else copy.deepcopy(value)
    return result
