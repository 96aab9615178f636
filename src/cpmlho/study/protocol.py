"""The protocol: read, checked as a whole, and resolved into one specification for each run.

Nothing here imports torch, so that the workflow reads the configuration in a fraction of a second.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self, TypeVar

import yaml
from pydantic import (
    Field,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from cpmlho.core.options import Fixed, Options, Search, Training
from cpmlho.study.grids import Grid, merge
from cpmlho.study.methods import METHODS, Method
from cpmlho.study.options import parse_options
from cpmlho.study.plugins import load_plugins
from cpmlho.study.settings import (
    Data,
    Dataset,
    Device,
    Identifier,
    Precision,
    Run,
    Split,
    Strict,
    Tracking,
    Variant,
)

Model = TypeVar("Model", bound=Strict)


SELECTION = {"base", "datasets", "seeds", "choices"}  # of a variant: what changes nothing about its base


class ConfigError(Exception):
    """The configuration cannot be used; the message says in one line what is wrong, where, and what would be right."""


def method_of(name: str) -> Method:
    """The registered method of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name}; known: {', '.join(METHODS)}")
    return METHODS[name]


def _read_training(content: Any) -> Any:
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

    _training = field_validator("training", mode="before")(_read_training)

    @field_serializer("settings")
    def _write_settings(self, settings: Options) -> dict[str, Any]:
        return {"algorithm": self.algorithm, **asdict(settings)}

    @property
    def trials(self) -> int | None:
        """How many trainings the method runs if it is a search."""
        return self.settings.trials if isinstance(self.settings, Search) else None

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


class Protocol(Strict):
    """The whole configuration."""

    results_dir: str
    note: str
    plugins: Annotated[list[str], Field(default_factory=list)]
    device: Device
    precision: Precision
    run: Run
    data: Data
    training: Training
    datasets: dict[Identifier, Dataset]
    methods: dict[str, SerializeAsAny[Options]]
    variants: dict[Identifier, Variant]
    grids: Annotated[dict[Identifier, Grid], Field(default_factory=dict)]
    tracking: Tracking

    _training = field_validator("training", mode="before")(_read_training)

    @model_validator(mode="before")
    @classmethod
    def _expand_grids(cls, content: Any) -> Any:
        """Every combination of a grid is a variant, and is run."""
        if not isinstance(content, Mapping) or not isinstance(content.get("grids"), Mapping):
            return content
        try:
            grids = TypeAdapter(dict[Identifier, Grid]).validate_python(content["grids"])
        except ValidationError:  # which the field itself reports, by its place
            return content
        made = {name: variant for grid in grids for name, variant in grids[grid].variants(grid)}
        run = {"variants": [*dict.fromkeys([*content["run"]["variants"], *made])]}
        return merge(content, {"variants": made, "run": run})

    @model_validator(mode="before")
    @classmethod
    def _load_plugins(cls, content: Any) -> Any:
        """Before all other checks, which ask for what is registered; a validator defined later runs earlier."""
        files = content.get("plugins") if isinstance(content, Mapping) else None
        if isinstance(files, list) and all(isinstance(file, str) for file in files):
            try:
                load_plugins(files)
            except ValueError as error:
                raise ValueError(f"plugins: {error}") from None
        return content

    @field_validator("methods", mode="before")
    @classmethod
    def _read_methods(cls, content: Any) -> Any:
        """The options of every registered method; what is not given has its default."""
        if not isinstance(content, Mapping):
            return content
        for name in content:
            method_of(name)
        return {
            name: parse_options(each.options, content.get(name) or {}, f"{name}.") for name, each in METHODS.items()
        }

    @model_validator(mode="after")
    def _selection_exists(self) -> Self:
        for name in self.run.datasets:
            if name not in self.datasets:
                raise ValueError(f"run.datasets: unknown dataset {name}; known: {', '.join(self.datasets)}")
        for name in self.run.variants:
            if name not in self.variants:
                raise ValueError(f"run.variants: unknown variant {name}; known: {', '.join(self.variants)}")
        self._check_values("fixed", self.resolve(RunKey(self.run.datasets[0], "fixed", 0)))
        for name, variant in self.variants.items():
            if name in METHODS:
                raise ValueError(f"variants.{name}: a variant cannot have a method's name")
            for dataset in variant.datasets or self.datasets:
                if dataset not in self.datasets:
                    raise ValueError(f"variants.{name}.datasets: unknown dataset {dataset}")
                self._check_values(name, self.resolve(RunKey(dataset, name, 0)))
        return self

    def _check_values(self, name: str, spec: RunSpec) -> None:
        source = spec.values_of
        if source is None:
            return
        if source not in METHODS and source not in self.variants:
            raise ValueError(f"{name}: values_of: unknown method {source}")
        base = self.variants[source].base if source in self.variants else source
        if METHODS[base].kind == "fixed":
            raise ValueError(f"{name}: values_of: {source} tunes nothing")

    def keys(self) -> Iterator[RunKey]:
        """All runs that the protocol asks for."""
        for dataset in self.run.datasets:
            for method in self.run.methods:
                yield from (RunKey(dataset, method, seed) for seed in self.run.seeds)
            for name in self.run.variants:
                variant = self.variants[name]
                if dataset in (variant.datasets or self.run.datasets):
                    yield from (RunKey(dataset, name, seed) for seed in variant.seeds or self.run.seeds)

    def resolve(self, key: RunKey) -> RunSpec:
        """Resolve one run.

        Raises:
            ConfigError: unknown dataset, method or variant.
            ValueError: the variant's changes do not fit its base.
        """
        if key.dataset not in self.datasets:
            raise ConfigError(f"unknown dataset {key.dataset}; known: {', '.join(self.datasets)}")
        data = self.datasets[key.dataset]
        parts: dict[str, Any] = {
            "changes": {},
            "split": self.data.split,
            "data": data.model_copy(update={"package": None}),  # where the files came from decides no number
            "training": self.training,
            "precision": self.precision,
        }
        if key.method in METHODS:
            parts |= {"algorithm": key.method, "settings": self.methods[key.method]}
        elif key.method in self.variants:
            parts |= self._varied(key.method, parts["data"])
        else:
            known = ", ".join([*METHODS, *self.variants])
            raise ConfigError(f"unknown method {key.method}; known: {known}")
        return RunSpec(
            **key._asdict(),
            data_dir=self.data.dir,
            valid_fraction=self.data.valid_fraction,
            device=self.device,
            **parts,
        )

    def _varied(self, name: str, data: Dataset) -> dict[str, Any]:
        """What a variant makes other than its base has it."""
        variant = self.variants[name]
        changed = data.model_dump()
        changed["network"].update(variant.network)
        changed["epochs"] = variant.epochs or data.epochs
        for parameter, start in variant.start.items():
            if parameter not in changed["hyperparameters"]:
                raise ValueError(f"variants.{name}.start: {parameter} is not tuned on {data.folder}")
            changed["hyperparameters"][parameter]["start"] = start
        base = self.methods[variant.base]
        try:
            parts = {
                "algorithm": variant.base,
                "settings": parse_options(type(base), {**asdict(base), **variant.settings}),
                "training": parse_options(Training, {**asdict(self.training), **variant.training}, "training."),
                "data": Dataset.model_validate(changed),
            }
        except ValidationError as error:
            raise ValueError(f"variants.{name}: {_one_line(error)}") from None
        except PydanticCustomError as error:
            raise ValueError(f"variants.{name}: {error.message()}") from None
        parts["changes"] = variant.model_dump(exclude=SELECTION, exclude_defaults=True)
        return parts | {key: getattr(variant, key) for key in ("split", "precision") if getattr(variant, key)}


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice, where plain YAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-4 as text; a person who writes it means the number.
_UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_UniqueKeyLoader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} line {error.lineno}: not valid JSON: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        where = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{where}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of settings, got {type(content).__name__}")
    return content


def _one_line(error: ValidationError) -> str:
    first, *rest = error.errors(include_url=False)
    where = ".".join(str(part) for part in first["loc"] if part != "[key]")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "setting":
        where, message = f"{where}.{first['ctx']['path']}", first["ctx"]["text"]
    elif first["type"] == "extra_forbidden":
        message = "unknown setting"
    elif first["type"] not in ("missing", "value_error"):
        message += f", got {first['input']!r}"
    more = f" (and {len(rest)} more)" if rest else ""
    return " ".join(f"{where}: {message}{more}".removeprefix(": ").split())


def _depth(content: Any, place: str) -> int:
    """How many levels of a dotted place, whose names may hold dots themselves, a configuration has."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if place == str(key) or place.startswith(f"{key}."):
            return 1 + _depth(value, place.removeprefix(str(key)).removeprefix("."))
    return 0


def _blamed(sources: Mapping[str, Mapping[str, Any]], message: str) -> str:
    """The last source that has most of the place which a message begins with; all if none has any of it."""
    depths = {name: _depth(content, message.partition(": ")[0]) for name, content in sources.items()}
    deepest = [name for name, depth in depths.items() if 0 < depth == max(depths.values())]
    return deepest[-1] if deepest else " + ".join(sources)


def _at_home(content: dict[str, Any]) -> dict[str, Any]:
    """The configuration with `~` in its paths expanded.

    Raises:
        ConfigError: there is no such home, or the tracking store's address has one, which MLflow would not expand.
    """
    content = copy.deepcopy(content)
    for setting in ("results_dir", "data.dir", "data.folder"):
        group, _, name = setting.rpartition(".")
        place = content.get(group) if group else content
        if isinstance(place, dict) and str(value := place.get(name)).startswith("~"):
            place[name] = os.path.expanduser(str(value))
            if place[name] == value:
                raise ConfigError(f"{setting}: {value}: there is no such home directory")
    tracking = content.get("tracking")
    if isinstance(tracking, dict) and "/~" in str(tracking.get("uri")):
        raise ConfigError("tracking.uri: ~ is not expanded there; write the whole path")
    return content


def load(paths: Sequence[Path], overrides: Mapping[str, Any] | None = None) -> Protocol:
    """Read configuration files, each merged over those before it, then `overrides`; `~` in paths is a home directory.

    Raises:
        ConfigError: a file is missing, unreadable or not YAML, or the whole breaks a rule; the message begins with the
            file, or with `--config` for an override, that the mistake stands in.
    """
    sources: dict[str, Mapping[str, Any]] = {str(path): _read(path) for path in paths}
    if overrides:
        sources["--config"] = overrides
    content: dict[str, Any] = {}
    for each in sources.values():
        content = merge(content, each)
    try:
        return Protocol.model_validate(_at_home(content))
    except (ValidationError, ConfigError) as error:
        message = _one_line(error) if isinstance(error, ValidationError) else str(error)
        raise ConfigError(f"{_blamed(sources, message)}: {message}") from None


def parse(kind: type[Model], text: str, option: str) -> Model:
    """A specification or a whole protocol from the JSON that a command-line option gives.

    Raises:
        ConfigError: it is not one.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{option}: {_one_line(error)}") from None
