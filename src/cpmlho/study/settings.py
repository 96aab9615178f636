"""The settings that a protocol is made of: typed, strict, each with the values that it may have."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from itertools import product
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

import cpmlho.study.networks  # noqa: F401  (registers the paper's)
from cpmlho.core.options import Training
from cpmlho.study.methods import METHODS
from cpmlho.study.reading import merge
from cpmlho.study.registry import CUTOUT, NETWORKS, READERS, NetworkOptions
from cpmlho.study.strict import Strict, read_options, unknown


def _one_of(what: str, registered: Collection[str]) -> AfterValidator:
    """A name that is registered when it is validated."""

    def check(name: str) -> str:
        if name not in registered:
            raise ValueError(unknown(f"{what} {name}", name, registered))
        return name

    return AfterValidator(check)


def _text(text: str) -> str:
    """Text without half of a surrogate pair, as a byte that is not UTF-8 becomes, and without a zero byte."""
    if "\0" in text or text.encode(errors="replace").decode() != text:
        raise ValueError(f"holds a character that cannot be written: {text!a}")
    return text


def _path(text: str) -> str:
    """A path, in which `~` is a home directory."""
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        raise ValueError(f"there is no home directory of {text}")
    return expanded


def _address(text: str) -> str:
    if "/~" in text:
        raise ValueError("~ is not expanded here; write the whole path")
    return text


def _numbers(value: Any, least: float = -math.inf) -> Any:
    """A number, or a list with one for each channel, each greater than `least`."""
    each = value if isinstance(value, list) else [value]
    if not each or not all(type(number) in (int, float) and math.isfinite(number) for number in each):
        raise ValueError(f"must be a number, or a list with one for each channel, got {value!r}")
    if min(each) <= least:
        raise ValueError(f"must be greater than {least}, got {value!r}")
    return [*map(float, value)] if isinstance(value, list) else float(value)


def _unique(value: list[Any]) -> list[Any]:
    if twice := [item for i, item in enumerate(value) if item in value[:i]]:
        raise ValueError(f"{twice[0]} is listed twice")
    return value


Numbers = Annotated[float | list[float], PlainValidator(_numbers)]
PositiveNumbers = Annotated[float | list[float], PlainValidator(partial(_numbers, least=0))]
Text = Annotated[str, AfterValidator(_text)]
PathText = Annotated[Text, AfterValidator(_path)]
MethodName = Annotated[str, _one_of("method", METHODS)]
Device = Literal["auto", "cpu", "cuda"]
Split = Literal["last", "random"]  # which part of the training file validates: the last, or a random one of the seed
Precision = Literal["auto", "float32", "bfloat16"]
InnerTraining = Annotated[Training, BeforeValidator(partial(read_options, Training))]
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
ARRAYS = "arrays"  # the name of the checksum of what a registered reader gives

PositiveInt = Annotated[int, Field(gt=0)]
Examples = Annotated[int, Field(ge=100)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1), AfterValidator(_unique)]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]*$")]
Names = Annotated[list[Identifier], Field(min_length=1), AfterValidator(_unique)]


class Network(Strict):
    """The network of a dataset: a registered kind, and next to it the kind's options."""

    model_config = ConfigDict(extra="allow")

    kind: Annotated[str, _one_of("network", NETWORKS)]

    @model_validator(mode="before")
    @classmethod
    def _read_options(cls, content: Any) -> Any:
        kind = content.get("kind") if isinstance(content, Mapping) else None
        if not isinstance(kind, str) or kind not in NETWORKS:
            return content  # a mistake that its field reports
        given = {name: value for name, value in content.items() if name != "kind"}
        return {"kind": kind, **asdict(read_options(NETWORKS[kind].options, given))}

    @property
    def options(self) -> NetworkOptions:
        """The options of its kind, typed."""
        return NETWORKS[self.kind].options(**(self.model_extra or {}))

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Names of the hyperparameters that this network can have."""
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
    name: Text
    version: Text | None
    path: Text


class Dataset(Strict):
    """One dataset with its network, hyperparameters and budget.

    A registered reader gives its arrays, or four IDX files whose checksums are all named.
    """

    reader: Annotated[str, _one_of("reader", READERS)] | None = Field(default=None, exclude_if=lambda it: it is None)
    folder: Text
    epochs: PositiveInt
    evaluate_every: PositiveInt = 1  # epochs
    examples: Examples | None
    mean: Numbers
    std: PositiveNumbers
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
            raise ValueError(f"sha256: must name exactly the files {', '.join(IDX_FILES)}")
        return self

    @model_validator(mode="after")
    def _network_has_them(self) -> Self:
        places = self.network.hyperparameters
        for name, range_ in self.hyperparameters.items():
            if name not in places:
                what = f"hyperparameter of the {self.network.kind} network"
                raise ValueError(f"hyperparameters.{name}: {unknown(what, name, places)}")
            limit = 28.0 if name in CUTOUT else 0.99
            if range_.high > limit:
                raise ValueError(f"hyperparameters.{name}.high: must be at most {limit}, got {range_.high}")
        if len({*CUTOUT} & {*self.hyperparameters}) == 1:
            raise ValueError("hyperparameters: cutout_length and cutout_holes must be tuned together")
        return self


class Data(Strict):
    """Where the datasets come from and how they are split."""

    dir: PathText
    sources: Annotated[list[Literal["folder", "torchvision", "registry"]], Field(min_length=1)]
    folder: PathText | None
    timeout: PositiveInt
    valid_fraction: Fraction
    split: Split = "last"


class Changes(Strict):
    """What a variant changes in a run: fields of its specification or its dataset, and where hyperparameters start."""

    settings: dict[str, Any] = Field(default_factory=dict)
    start: dict[Identifier, float] = Field(default_factory=dict)
    network: dict[str, Any] = Field(default_factory=dict)
    epochs: PositiveInt | None = None
    evaluate_every: PositiveInt | None = None
    examples: Examples | None = None
    valid_fraction: Fraction | None = None
    precision: Precision | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    split: Split | None = None


class Variant(Changes):
    """A method under another name, with changes."""

    base: MethodName
    label: Text = ""  # in figures and sentences; empty: its name
    datasets: Names | None = None
    seeds: Seeds | None = None
    choices: dict[str, str] = Field(default_factory=dict)  # of a grid, by axis

    @property
    def changes(self) -> dict[str, Any]:
        """The settings that it changes."""
        return self.model_dump(include={*Changes.model_fields}, exclude_defaults=True)


class Grid(Strict):
    """Variants from axes: each combination of one choice per axis, under a name made of the choices.

    Attributes:
        axes: by axis and choice, what the choice sets of a variant; later axes are merged over earlier ones.
        datasets: that the variants run on; None: the protocol's.
        seeds: of the variants; None: the protocol's.
    """

    axes: Annotated[
        dict[Identifier, Annotated[dict[Identifier, dict[str, Any]], Field(min_length=1)]], Field(min_length=1)
    ]
    datasets: Names | None = None
    seeds: Seeds | None = None

    @model_validator(mode="after")
    def _base_is_chosen(self) -> Self:
        if not any(all("base" in choice for choice in axis.values()) for axis in self.axes.values()):
            raise ValueError("axes: one axis must set `base` in each of its choices")
        return self

    def variants(self, grid: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each combination under its name, `GRID_CHOICE_CHOICE`, as the configuration would write it."""
        shared = {"datasets": self.datasets, "seeds": self.seeds}
        for chosen in product(*(axis.items() for axis in self.axes.values())):
            names = [name for name, _ in chosen]
            content = {key: value for key, value in shared.items() if value is not None}
            for _, choice in chosen:
                content = merge(content, choice)
            yield "_".join([grid, *names]), content | {"choices": dict(zip(self.axes, names, strict=True))}


class Run(Strict):
    """What to run: the selection from everything that the rest declares.

    Attributes:
        datasets: on which every method runs, and every variant that names no datasets of its own.
        variant_datasets: more datasets, on which only the variants run that name them.
    """

    datasets: Names
    variant_datasets: Annotated[list[Identifier], AfterValidator(_unique)] = Field(default_factory=list)
    methods: Annotated[list[MethodName], Field(min_length=1), AfterValidator(_unique)]
    variants: Annotated[list[Identifier], AfterValidator(_unique)]
    seeds: Seeds

    @property
    def every_dataset(self) -> list[str]:
        """All datasets, each once."""
        return list(dict.fromkeys(self.datasets + self.variant_datasets))


class Hypothesis(Strict):
    """What a protocol expects of the test loss of a method minus that of another.

    Attributes:
        id: what it is called.
        claim: what it says, as a clause.
        method: a method or variant.
        other: what it is compared with.
        expected: the sign of the difference, or that it is too small to matter.
        family: Holm's correction is over the hypotheses of one family.
        gradients_of: `other` is a search, stopped after as many gradients as one run of this method takes.
    """

    id: Text
    claim: Text
    method: Identifier
    other: Identifier
    expected: Literal["below", "equal"]
    family: Text = "main"  # the headline is about this one
    gradients_of: Identifier | None = None


class Tracking(Strict):
    """Where MLflow logs to, and whether it gets the networks."""

    uri: Annotated[Text, AfterValidator(_address)] | None
    networks: bool
