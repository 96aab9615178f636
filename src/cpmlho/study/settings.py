"""The settings that the protocol is made of: typed, strict, each with the values that it may have."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from cpmlho.study.methods import METHODS
from cpmlho.study.strict import Strict


def _known(name: str) -> str:
    if name not in METHODS:
        raise ValueError(f"unknown method {name}; known: {', '.join(METHODS)}")
    return name


MethodName = Annotated[str, AfterValidator(_known)]
Device = Literal["auto", "cpu", "cuda"]
Split = Literal["last", "random"]  # the last part of the training file validates, or a random one of the seed (R20)
Precision = Literal["auto", "float32", "bfloat16"]
HyperparameterName = Literal["dropout0", "dropout1", "dropout2", "dropout_fc", "cutout_length", "cutout_holes"]
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CUTOUT = ("cutout_length", "cutout_holes")

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]*$")]


class Network(Strict):
    """The network of a dataset: an MLP with three linear layers, or a CNN with two convolutions."""

    kind: Literal["mlp", "cnn"]
    hidden_units: Annotated[int, Field(ge=0)]
    output_units: Annotated[int, Field(ge=10)] = 10

    @model_validator(mode="after")
    def _mlp_needs_hidden_units(self) -> Self:
        if self.kind == "mlp" and self.hidden_units == 0:
            raise ValueError("hidden_units of an mlp must be at least 1")
        return self

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Names of the hyperparameters that this network has a place for."""
        dropouts = ("dropout0", "dropout1", "dropout2")
        if self.kind == "mlp":
            return dropouts
        return (*dropouts, *(("dropout_fc",) if self.hidden_units else ()), *CUTOUT)


class Hyperparameter(Strict):
    """The range of one hyperparameter and its start, in its own units."""

    low: NonNegativeFloat
    high: PositiveFloat
    start: PositiveFloat

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.start < self.high:
            raise ValueError(f"low < start < high must hold, got {self.low}, {self.start}, {self.high}")
        return self


class Package(Strict):
    """A registry package that carries the dataset's files under `path`."""

    registry: Literal["npm", "debian"]
    name: str
    version: str | None
    path: str


class Dataset(Strict):
    """One dataset with its network, hyperparameters and budget."""

    folder: str
    epochs: PositiveInt
    examples: Annotated[int, Field(ge=100)] | None
    mean: Annotated[float, Field(allow_inf_nan=False)]
    std: PositiveFloat
    network: Network
    hyperparameters: Annotated[dict[HyperparameterName, Hyperparameter], Field(min_length=1)]
    package: Package | None
    sha256: dict[str, Sha256]

    @field_validator("sha256")
    @classmethod
    def _all_files(cls, value: dict[str, str]) -> dict[str, str]:
        if set(value) != set(IDX_FILES):
            raise ValueError(f"must name exactly the files {', '.join(IDX_FILES)}")
        return value

    @model_validator(mode="after")
    def _network_has_them(self) -> Self:
        for name, range_ in self.hyperparameters.items():
            if name not in self.network.hyperparameters:
                raise ValueError(f"the {self.network.kind} network has no {name}")
            limit = 0.99 if name.startswith("dropout") else 28.0
            if range_.high > limit:
                raise ValueError(f"hyperparameters.{name}.high must be at most {limit}, got {range_.high}")
        if len({name for name in self.hyperparameters if name in CUTOUT}) == 1:
            raise ValueError("cutout_length and cutout_holes must be tuned together")
        return self


class Data(Strict):
    """Where the datasets come from and how they are split."""

    dir: str
    sources: Annotated[list[Literal["folder", "torchvision", "registry"]], Field(min_length=1)]
    folder: str | None
    timeout: PositiveInt
    valid_fraction: Annotated[float, Field(gt=0, lt=1)]
    split: Split = "last"


class Variant(Strict):
    """A method under another name, with other settings, start, network, budget, precision, inner training or split."""

    base: MethodName
    datasets: Annotated[list[Identifier], Field(min_length=1)] | None = None
    seeds: Seeds | None = None
    settings: Annotated[dict[str, Any], Field(default_factory=dict)]
    start: Annotated[dict[HyperparameterName, float], Field(default_factory=dict)]
    network: Annotated[dict[str, Any], Field(default_factory=dict)]
    epochs: PositiveInt | None = None
    precision: Precision | None = None
    training: Annotated[dict[str, Any], Field(default_factory=dict)]
    split: Split | None = None
    choices: Annotated[dict[str, str], Field(default_factory=dict)]  # of a grid, by axis


class Run(Strict):
    """What to run: the selection from everything that the rest declares."""

    datasets: Annotated[list[Identifier], Field(min_length=1)]
    methods: Annotated[list[MethodName], Field(min_length=1)]
    variants: list[Identifier]
    seeds: Seeds

    @field_validator("datasets", "methods", "variants", "seeds")
    @classmethod
    def _unique(cls, value: list[Any]) -> list[Any]:
        twice = [item for i, item in enumerate(value) if item in value[:i]]
        if twice:
            raise ValueError(f"{twice[0]} is listed twice")
        return value


class Tracking(Strict):
    """Where MLflow logs to."""

    uri: str | None
