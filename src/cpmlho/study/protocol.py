"""The protocol: the configuration checked as a whole, and resolved into one specification for each run.

Nothing here imports torch, so that the workflow reads the configuration in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SerializeAsAny, TypeAdapter, ValidationError, field_validator, model_validator

from cpmlho.core.options import Options
from cpmlho.study.files import check_folder
from cpmlho.study.methods import METHODS
from cpmlho.study.plugins import load_plugins
from cpmlho.study.reading import blamed, check_text, merge, read_file
from cpmlho.study.settings import (
    Data,
    Dataset,
    Device,
    Grid,
    Hypothesis,
    Identifier,
    InnerTraining,
    PathText,
    Precision,
    Run,
    Tracking,
    Variant,
)
from cpmlho.study.spec import RunKey, RunSpec
from cpmlho.study.strict import ConfigError, Strict, mistake, read_options, setting_error, unknown

SELECTION = {
    "base",
    "label",
    "datasets",
    "seeds",
    "choices",
}  # the settings of a variant that change nothing about its base


class Protocol(Strict):
    """The whole configuration."""

    results_dir: PathText
    note: str
    withdrawn: str = ""
    plugins: Annotated[list[str], Field(default_factory=list)]
    device: Device
    precision: Precision
    run: Run
    data: Data
    training: InnerTraining
    datasets: dict[Identifier, Dataset]
    methods: dict[str, SerializeAsAny[Options]]
    variants: dict[Identifier, Variant]
    grids: Annotated[dict[Identifier, Grid], Field(default_factory=dict, exclude=True)]  # expanded into variants
    hypotheses: Annotated[list[Hypothesis], Field(default_factory=list)]  # tested on the seeds of `run`
    tracking: Tracking
    multiverse: PathText | None = None  # results of the specification curve, which the report counts next to its runs

    @model_validator(mode="before")
    @classmethod
    def _expand_grids(cls, content: Any) -> Any:
        """Declare and select every combination of each grid as a variant."""
        try:
            grids = TypeAdapter(dict[Identifier, Grid]).validate_python(content["grids"])
            declared, selected = {**content["variants"]}, [*content["run"]["variants"]]
        except (KeyError, TypeError, ValidationError):  # no grids, or a mistake that a field reports with its path
            return content
        for grid, each in grids.items():
            for name, variant in each.variants(grid):
                if name in declared:
                    what = f"there is a variant {name} already; rename the grid or a choice"
                    raise setting_error(f"grids.{grid}", what)
                declared[name] = variant
                selected += [] if name in selected else [name]
        return {**content, "variants": declared, "run": {**content["run"], "variants": selected}}

    @model_validator(mode="before")
    @classmethod
    def _load_plugins(cls, content: Any) -> Any:
        """Register what plug-ins declare before anything else is checked; the last `before` validator runs first."""
        files = content.get("plugins") if isinstance(content, Mapping) else None
        if isinstance(files, list) and all(isinstance(file, str) for file in files):
            try:
                load_plugins(files)
            except ValueError as error:
                raise setting_error("plugins", str(error)) from None
        return content

    @field_validator("methods", mode="before")
    @classmethod
    def _read_methods(cls, content: Any) -> Any:
        """The options of every registered method; what is not given has its default."""
        if not isinstance(content, Mapping):
            return content
        for name in map(str, content):
            if name not in METHODS:
                raise setting_error(name, unknown("method", name, METHODS))
        given = {name: options for name, options in content.items() if options is not None}
        return {name: read_options(each.options, given.get(name, {}), name) for name, each in METHODS.items()}

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        """Check the names that one part of the protocol uses for another, and that every variant fits its base."""
        self._check_names("run.datasets", "dataset", self.run.datasets, self.datasets)
        self._check_names("run.variants", "variant", self.run.variants, self.variants)
        for each in self.hypotheses:
            names = [each.method, each.other, *filter(None, [each.gradients_of])]
            self._check_names(
                f"hypotheses.{each.id}", "method", names, dict.fromkeys([*self.run.methods, *self.run.variants])
            )
        self._check_values("methods.fixed", self.resolve(RunKey(self.run.datasets[0], "fixed", 0)))
        for name, variant in self.variants.items():
            if name in METHODS:
                raise setting_error(f"variants.{name}", "a variant cannot have a method's name")
            self._check_names(f"variants.{name}.datasets", "dataset", variant.datasets or (), self.datasets)
            for dataset in variant.datasets or self.datasets:
                self._check_values(f"variants.{name}.settings", self.resolve(RunKey(dataset, name, 0)))
        return self

    @staticmethod
    def _check_names(path: str, what: str, names: Sequence[str], known: Mapping[str, object]) -> None:
        for name in names:
            if name not in known:
                raise setting_error(path, unknown(f"{what} {name}", name, list(known)))

    def _check_values(self, path: str, spec: RunSpec) -> None:
        source = spec.values_of
        if source is None:
            return
        known = [*METHODS, *self.variants]
        if source not in known:
            raise setting_error(f"{path}.values_of", unknown(f"method {source}", source, known))
        base = self.variants[source].base if source in self.variants else source
        if METHODS[base].kind == "fixed":
            raise setting_error(f"{path}.values_of", f"{source} tunes nothing")

    def keys(self) -> Iterator[RunKey]:
        """Every run that is asked for."""
        for dataset in self.run.datasets:
            for method in self.run.methods:
                yield from (RunKey(dataset, method, seed) for seed in self.run.seeds)
            for name in self.run.variants:
                variant = self.variants[name]
                if dataset in (variant.datasets or self.run.datasets):
                    yield from (RunKey(dataset, name, seed) for seed in variant.seeds or self.run.seeds)

    def resolve(self, key: RunKey) -> RunSpec:
        """The specification of one run.

        Raises:
            ConfigError: unknown dataset, method or variant; or the variant's changes do not fit its base.
        """
        if key.dataset not in self.datasets:
            raise ConfigError(unknown(f"dataset {key.dataset}", key.dataset, self.datasets))
        variant = self.variants.get(key.method)
        if variant is None and key.method not in METHODS:
            raise ConfigError(unknown(f"method {key.method}", key.method, [*METHODS, *self.variants]))
        algorithm = variant.base if variant else key.method
        content = {
            **key._asdict(),
            "changes": {},
            "data_dir": self.data.dir,
            "valid_fraction": self.data.valid_fraction,
            "split": self.data.split,
            "data": self.datasets[key.dataset].model_dump() | {"package": None},  # the source changes no number
            "training": asdict(self.training),
            "algorithm": algorithm,
            "settings": asdict(self.methods[algorithm]),
            "device": self.device,
            "precision": self.precision,
        }
        if variant:
            content = merge(content, self._changes(key, variant))
        try:
            return RunSpec.model_validate(content)
        except ValidationError as error:
            path, text = mistake(error)
            path = path.replace("data.hyperparameters.", "start.").removeprefix("data.")
            raise ConfigError(f"variants.{key.method}.{path}: {text}") from None

    def _changes(self, key: RunKey, variant: Variant) -> dict[str, Any]:
        """What a variant changes in the specification of its base."""
        tuned = self.datasets[key.dataset].hyperparameters
        for name in variant.start:
            if name not in tuned:
                what = unknown(f"hyperparameter of {key.dataset}", name, tuned)
                raise ConfigError(f"variants.{key.method}.start.{name}: {what}")
        starts = {name: {"start": value} for name, value in variant.start.items()}
        return {
            "changes": variant.model_dump(exclude=SELECTION, exclude_defaults=True),
            "data": {"hyperparameters": starts, "network": variant.network}
            | {name: value for name in ("epochs", "evaluate_every", "examples") if (value := getattr(variant, name))},
            "training": variant.training,
            "settings": variant.settings,
        } | {name: value for name in ("split", "precision", "valid_fraction") if (value := getattr(variant, name))}

    def check_folders(self) -> None:
        """Check, before anything is made, that the folders which the protocol names can be used.

        Raises:
            ConfigError: one is a link to nothing, is no folder, or may not be written.
        """
        check_folder("results_dir", self.results_dir, written=True)
        check_folder("data.dir", self.data.dir)
        if self.data.folder:
            check_folder("data.folder", self.data.folder)
        if self.multiverse:
            check_folder("multiverse", self.multiverse)


def load(paths: Sequence[Path], overrides: Mapping[str, Any] | None = None) -> Protocol:
    """Read configuration files, each merged over those before it, then `overrides`.

    Raises:
        ConfigError: a file is missing, unreadable or not YAML, or a setting is wrong; the message begins with the file
            that the setting stands in, or with `--config` if it is one of the overrides.
    """
    sources: dict[str, Mapping[str, Any]] = {str(path): read_file(path) for path in paths}
    if overrides:
        sources["--config"] = overrides
    content: dict[str, Any] = {}
    for each in sources.values():
        content = merge(content, each)
    try:
        check_text(content)
        return Protocol.model_validate(content)
    except ValidationError as error:
        path, text = mistake(error)
    except ConfigError as error:
        path, _, text = str(error).partition(": ")
    raise ConfigError(f"{blamed(sources, path)}: {path}: {text}") from None
