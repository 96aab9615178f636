"""The settings that the protocol is made of: typed, strict, each with the values that it may have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, field_validator, model_validator

import cpmlho.study.networks  # noqa: F401  (registers the paper's)
from cpmlho.study.methods import METHODS
from cpmlho.study.options import parse_options
from cpmlho.study.registry import CUTOUT, NETWORKS, READERS, NetworkOptions
from cpmlho.study.strict import Strict, setting_error


def _known(name: str) -> str:
    if name not in METHODS:
        raise ValueError(f"unknown method {name}; known: {', '.join(METHODS)}")
    return name


def _known_network(kind: str) -> str:
    if kind not in NETWORKS:
        raise ValueError(f"unknown network {kind}; known: {', '.join(NETWORKS)}")
    return kind


def _known_reader(name: str | None) -> str | None:
    if name is not None and name not in READERS:
        raise ValueError(f"unknown reader {name}; known: {', '.join(READERS) or 'none'}, of files named in plugins")
    return name


def _numbers(value: Any) -> Any:
    """A number, or a list with one for each channel."""
    each = value if isinstance(value, list) else [value]
    if not each or not all(type(number) in (int, float) and math.isfinite(number) for number in each):
        raise ValueError(f"must be a number, or a list with one for each channel, got {value!r}")
    return [*map(float, value)] if isinstance(value, list) else float(value)


def _positive(value: Any) -> Any:
    if min(value if isinstance(value, list) else [value]) <= 0:
        raise ValueError(f"must be greater than 0, got {value!r}")
    return value


Numbers = Annotated[float | list[float], PlainValidator(_numbers)]
MethodName = Annotated[str, AfterValidator(_known)]
Device = Literal["auto", "cpu", "cuda"]
Split = Literal["last", "random"]  # the last part of the training file validates, or a random one of the seed (R20)
Precision = Literal["auto", "float32", "bfloat16"]
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
ARRAYS = "arrays"  # what the checksum of a registered reader's data is of

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]*$")]


class Network(Strict):
    """The network of a dataset: a registered kind, and its options, which stand beside it."""

    model_config = ConfigDict(extra="allow")

    kind: Annotated[str, AfterValidator(_known_network)]

    @model_validator(mode="before")
    @classmethod
    def _read_options(cls, content: Any) -> Any:
        kind = content.get("kind") if isinstance(content, Mapping) else None
        if not isinstance(kind, str) or kind not in NETWORKS:
            return content  # a mistake that its field reports
        given = {name: value for name, value in content.items() if name != "kind"}
        options = asdict(parse_options(NETWORKS[kind].options, given))
        outputs = options.pop("output_units")
        return {"kind": kind, **options, "output_units": outputs}

    @property
    def options(self) -> NetworkOptions:
        """Its options, typed."""
        return NETWORKS[self.kind].options(**(self.model_extra or {}))

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Names of the hyperparameters that this network has a place for."""
        return NETWORKS[self.kind].hyperparameters(self.options)


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
    """One dataset with its network, hyperparameters and budget.

    It is read by a registered reader, or from IDX files, of which then everything must be said.
    """

    reader: Annotated[str | None, AfterValidator(_known_reader)] = Field(default=None, exclude_if=lambda it: it is None)
    folder: str
    epochs: PositiveInt
    evaluate_every: PositiveInt = 1  # epochs
    examples: Annotated[int, Field(ge=100)] | None
    mean: Numbers
    std: Annotated[Numbers, AfterValidator(_positive)]
    network: Network
    hyperparameters: Annotated[dict[Identifier, Hyperparameter], Field(min_length=1)]
    package: Package | None
    sha256: dict[str, Sha256]

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_a_reader(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and (reader := READERS.get(str(content.get("reader")))):
            return {"folder": reader.label, "examples": None, "package": None, "sha256": {}, **content}
        return content

    @model_validator(mode="after")
    def _files_are_named(self) -> Self:
        if self.reader and (self.package or set(self.sha256) - {ARRAYS}):
            raise ValueError(f"a dataset with a reader has no package, and no checksum but that of its {ARRAYS}")
        if not self.reader and set(self.sha256) != set(IDX_FILES):
            raise setting_error("sha256", f"must name exactly the files {', '.join(IDX_FILES)}")
        return self

    @model_validator(mode="after")
    def _network_has_them(self) -> Self:
        places = self.network.hyperparameters
        for name, range_ in self.hyperparameters.items():
            if name not in places:
                raise ValueError(f"the {self.network.kind} network has no {name}")
            limit = 28.0 if name in CUTOUT else 0.99
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
    start: Annotated[dict[Identifier, float], Field(default_factory=dict)]
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
    """Where MLflow logs to, and whether it gets the networks."""

    uri: str | None
    networks: bool
