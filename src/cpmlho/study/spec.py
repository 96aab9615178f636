"""One run: its name, and everything that decides its numbers. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from pydantic import Field, ValidationInfo, field_serializer, field_validator, model_validator

from cpmlho.core.options import Fixed, Options, Search
from cpmlho.study.methods import METHODS
from cpmlho.study.settings import Dataset, Device, InnerTraining, MethodName, Precision, Split
from cpmlho.study.strict import Strict, read_options

PLACE = {"data_dir"}  # the fields of a specification that change no number


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
    training: InnerTraining
    algorithm: MethodName = Field(exclude=True)  # in files it is one of the settings
    settings: Options
    device: Device
    precision: Precision

    @model_validator(mode="before")
    @classmethod
    def _split(cls, content: Any) -> Any:
        """Take the algorithm out of the settings, where files have it, and drop a setting of earlier versions."""
        if not isinstance(content, Mapping):
            return content
        content = {name: value for name, value in content.items() if name != "cuda_graphs"}
        if "algorithm" not in content and isinstance(content.get("settings"), Mapping):
            settings = dict(content["settings"])
            content |= {"algorithm": settings.pop("algorithm", None), "settings": settings}
        return content

    @field_validator("settings", mode="before")
    @classmethod
    def _read_settings(cls, content: Any, info: ValidationInfo) -> Any:
        algorithm = info.data.get("algorithm")  # None: it is wrong, which its field reports
        return read_options(METHODS[algorithm].options, content) if algorithm else content

    @field_serializer("settings")
    def _write_settings(self, settings: Options) -> dict[str, Any]:
        return {"algorithm": self.algorithm, **asdict(settings)}

    @property
    def trials(self) -> int | None:
        """How many trials a search runs; None for any other method."""
        return self.settings.trials if isinstance(self.settings, Search) else None

    @property
    def trainings(self) -> float:
        """How many whole trainings the run takes, over all trials."""
        own = METHODS[self.algorithm].trainings
        return own(self.settings) if own else self.trials or 1

    @property
    def values_of(self) -> str | None:
        """The method whose run of the same seed gives this run its fixed values; None for any other run."""
        return self.settings.values_of if isinstance(self.settings, Fixed) else None


class RunKey(NamedTuple):
    """The three nouns that name a run."""

    dataset: str
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.dataset}/{self.method}/seed{self.seed}"
