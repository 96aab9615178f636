"""One run: its name, and everything that decides its numbers. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from pydantic import Field, field_serializer, field_validator, model_validator

from cpmlho.core.options import Fixed, Options, Search, Training
from cpmlho.study.methods import METHODS, Method
from cpmlho.study.options import parse_options
from cpmlho.study.settings import Dataset, Device, Precision, Split
from cpmlho.study.strict import Strict

PLACE = {"data_dir", "cuda_graphs"}  # of a specification: where and how, which decides no number


def method_of(name: str) -> Method:
    """The registered method of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name}; known: {', '.join(METHODS)}")
    return METHODS[name]


def read_training(content: Any) -> Any:
    """Options of the inner training from settings; anything else as it is, for the field to refuse."""
    return parse_options(Training, content) if isinstance(content, Mapping) else content


class RunSpec(Strict):
    """Everything that decides one run's numbers and nothing else: a run is repeated when, and only when, it changes."""

    dataset: str
    method: str
    seed: int
    changes: dict[str, Any]
    data_dir: str
    valid_fraction: float
    split: Split = "last"
    data: Dataset
    training: Training
    algorithm: str = Field(exclude=True)  # stands among the settings in files
    settings: Options
    device: Device
    precision: Precision
    cuda_graphs: bool = False

    @model_validator(mode="before")
    @classmethod
    def _read_settings(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and isinstance(content.get("settings"), Mapping):
            settings = dict(content["settings"])
            algorithm = settings.pop("algorithm", None)
            return {
                **content,
                "algorithm": algorithm,
                "settings": parse_options(method_of(str(algorithm)).options, settings),
            }
        return content

    _training = field_validator("training", mode="before")(read_training)

    @field_serializer("settings")
    def _write_settings(self, settings: Options) -> dict[str, Any]:
        return {"algorithm": self.algorithm, **asdict(settings)}

    @property
    def trials(self) -> int | None:
        """How many trainings the method runs if it is a search."""
        return self.settings.trials if isinstance(self.settings, Search) else None

    @property
    def trainings(self) -> float:
        """How many whole trainings the run takes, over all trials."""
        own = METHODS[self.algorithm].trainings
        return own(self.settings) if own else self.trials or 1

    @property
    def values_of(self) -> str | None:
        """The method whose run of the same seed gives this one its fixed values, if one does."""
        return self.settings.values_of if isinstance(self.settings, Fixed) else None


class RunKey(NamedTuple):
    """The three nouns that name a run."""

    dataset: str
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.dataset}/{self.method}/seed{self.seed}"
