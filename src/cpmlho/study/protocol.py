"""The protocol: the configuration checked as a whole, and resolved into one specification for each run.

Nothing here imports torch, so that the workflow reads the configuration in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SerializeAsAny, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from cpmlho.core.options import Options, Training
from cpmlho.study.grids import Grid, made_by, merge
from cpmlho.study.methods import METHODS
from cpmlho.study.options import parse_options
from cpmlho.study.plugins import load_plugins
from cpmlho.study.reading import at_home, blamed, check_text, read_file
from cpmlho.study.settings import Data, Dataset, Device, Identifier, Precision, Run, Tracking, Variant
from cpmlho.study.spec import RunKey, RunSpec, method_of, read_training
from cpmlho.study.strict import ConfigError, Strict, one_line

SELECTION = {"base", "datasets", "seeds", "choices"}  # of a variant: what changes nothing about its base


class Protocol(Strict):
    """The whole configuration."""

    results_dir: str
    note: str
    withdrawn: str = ""
    plugins: Annotated[list[str], Field(default_factory=list)]
    device: Device
    precision: Precision
    cuda_graphs: bool
    run: Run
    data: Data
    training: Training
    datasets: dict[Identifier, Dataset]
    methods: dict[str, SerializeAsAny[Options]]
    variants: dict[Identifier, Variant]
    grids: Annotated[dict[Identifier, Grid], Field(default_factory=dict, exclude=True)]  # each one's variants are above
    tracking: Tracking
    multiverse: str | None = None  # results of the specification curve, which the report counts beside its own runs

    _training = field_validator("training", mode="before")(read_training)

    @model_validator(mode="before")
    @classmethod
    def _expand_grids(cls, content: Any) -> Any:
        """Every combination of a grid is a variant, and is run."""
        try:
            grids = TypeAdapter(dict[Identifier, Grid]).validate_python(content["grids"])
            declared, selected = {**content["variants"]}, [*content["run"]["variants"]]
        except (KeyError, TypeError, ValidationError):  # none, or a mistake that its field reports, by its place
            return content
        made = made_by(grids, declared)
        run = {"variants": [*dict.fromkeys([*selected, *made])]}
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
        given = {name: options for name, options in content.items() if options is not None}
        return {name: parse_options(each.options, given.get(name, {}), f"{name}.") for name, each in METHODS.items()}

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
            cuda_graphs=self.cuda_graphs,
            **parts,
        )

    def _varied(self, name: str, data: Dataset) -> dict[str, Any]:
        """What a variant makes other than its base has it."""
        variant = self.variants[name]
        changed = merge(data.model_dump(), {"network": variant.network, "epochs": variant.epochs or data.epochs})
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
            raise ValueError(f"variants.{name}: {one_line(error)}") from None
        except PydanticCustomError as error:
            raise ValueError(f"variants.{name}: {error.message()}") from None
        parts["changes"] = variant.model_dump(exclude=SELECTION, exclude_defaults=True)
        return parts | {key: getattr(variant, key) for key in ("split", "precision") if getattr(variant, key)}


def load(paths: Sequence[Path], overrides: Mapping[str, Any] | None = None) -> Protocol:
    """Read configuration files, each merged over those before it, then `overrides`; `~` in paths is a home directory.

    Raises:
        ConfigError: a file is missing, unreadable or not YAML, or the whole breaks a rule; the message begins with the
            file, or with `--config` for an override, that the mistake stands in.
    """
    sources: dict[str, Mapping[str, Any]] = {str(path): read_file(path) for path in paths}
    if overrides:
        sources["--config"] = overrides
    content: dict[str, Any] = {}
    for each in sources.values():
        content = merge(content, each)
    try:
        check_text(content)
        return Protocol.model_validate(at_home(content))
    except (ValidationError, ConfigError) as error:
        message = one_line(error) if isinstance(error, ValidationError) else str(error)
        raise ConfigError(f"{blamed(sources, message)}: {message}") from None
