"""The protocol: the configuration checked as a whole, and resolved into one specification for each run.

Nothing here imports torch, so that the workflow reads the configuration in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from cpmlho.core.options import Options
from cpmlho.study.files import check_folder
from cpmlho.study.methods import METHODS
from cpmlho.study.plugins import load_plugins
from cpmlho.study.reading import blamed, merge, read_file
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
    Text,
    Tracking,
    Variant,
)
from cpmlho.study.spec import RunKey, RunSpec
from cpmlho.study.strict import ConfigError, Strict, one_line, read_options, unknown


class Protocol(Strict):
    """The whole configuration."""

    results_dir: PathText
    note: Text
    withdrawn: Text = ""
    plugins: list[str] = Field(default_factory=list)
    device: Device
    precision: Precision
    run: Run
    data: Data
    training: InnerTraining
    datasets: dict[Identifier, Dataset]
    methods: dict[str, SerializeAsAny[Options]]
    grids: dict[Identifier, Grid] = Field(default_factory=dict, exclude=True)  # expanded into variants
    variants: dict[Identifier, Variant]
    hypotheses: list[Hypothesis] = Field(default_factory=list)  # tested on the seeds of `run`
    tracking: Tracking
    multiverse: PathText | None = None  # results of the specification curve, which the report counts next to its runs

    @field_validator("methods", mode="before")
    @classmethod
    def _read_methods(cls, content: Any) -> Any:
        """Read the options of every registered method; what is not given has its default."""
        if not isinstance(content, Mapping):
            return content
        kinds: Any = {name: (_read_by(method.options), {}) for name, method in METHODS.items()}
        given = {name: options for name, options in content.items() if options is not None}
        return dict(create_model("Methods", __base__=Strict, **kinds).model_validate(given))

    @field_validator("variants", mode="before")
    @classmethod
    def _add_grids(cls, content: Any, info: ValidationInfo) -> Any:
        """Declare each combination of each grid."""
        if not isinstance(content, Mapping):
            return content
        declared = dict(content)
        for grid, each in info.data.get("grids", {}).items():
            for name, variant in each.variants(grid):
                if name in declared:
                    raise ConfigError(f"grids.{grid}: there is a variant {name} already; rename the grid or a choice")
                declared[name] = variant
        return declared

    @model_validator(mode="after")
    def _select_grids(self) -> Self:
        """Select each combination of each grid."""
        made = [name for grid, each in self.grids.items() for name, _ in each.variants(grid)]
        self.run.variants.extend(name for name in made if name not in self.run.variants)
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        """Check the names that one part of the protocol uses for another, and that every variant fits its base."""
        self._check_names("run.datasets", "dataset", self.run.datasets, self.datasets)
        self._check_names("run.variant_datasets", "dataset", self.run.variant_datasets, self.datasets)
        self._check_names("run.variants", "variant", self.run.variants, self.variants)
        run = [*self.run.methods, *self.run.variants]
        for each in self.hypotheses:
            names = filter(None, [each.method, each.other, each.gradients_of])
            self._check_names(f"hypotheses.{each.id}", "method", names, run)
        self._check_values("methods.fixed", self.resolve(RunKey(self.run.datasets[0], "fixed", 0)))
        for name, variant in self.variants.items():
            if name in METHODS:
                raise ValueError(f"variants.{name}: a variant cannot have a method's name")
            self._check_names(f"variants.{name}.datasets", "dataset", variant.datasets or (), self.datasets)
            for dataset in variant.datasets or self.datasets:
                self._check_values(f"variants.{name}.settings", self.resolve(RunKey(dataset, name, 0)))
        return self

    @staticmethod
    def _check_names(path: str, what: str, names: Iterable[str], known: Collection[str]) -> None:
        for name in names:
            if name not in known:
                raise ValueError(f"{path}: {unknown(f'{what} {name}', name, known)}")

    def _check_values(self, path: str, spec: RunSpec) -> None:
        if (source := spec.values_of) is not None:
            self._check_names(f"{path}.values_of", "method", [source], [*METHODS, *self.variants])
            base = self.variants[source].base if source in self.variants else source
            if METHODS[base].kind == "fixed":
                raise ValueError(f"{path}.values_of: {source} tunes nothing")

    def keys(self) -> Iterator[RunKey]:
        """Yield every run of the selection."""
        for dataset in self.run.every_dataset:
            for method in self.run.methods if dataset in self.run.datasets else ():
                yield from (RunKey(dataset, method, seed) for seed in self.run.seeds)
            for name in self.run.variants:
                variant = self.variants[name]
                if dataset in (variant.datasets or self.run.datasets):
                    yield from (RunKey(dataset, name, seed) for seed in variant.seeds or self.run.seeds)

    def resolve(self, key: RunKey) -> RunSpec:
        """Return the specification of one run.

        Raises:
            ConfigError: unknown dataset, method or variant; or the variant's changes do not fit its base.
        """
        known = [*METHODS, *self.variants]
        if key.dataset not in self.datasets:
            raise ConfigError(unknown(f"dataset {key.dataset}", key.dataset, self.datasets))
        if key.method not in known:
            raise ConfigError(unknown(f"method {key.method}", key.method, known))
        variant = self.variants.get(key.method)
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
        try:
            return RunSpec.model_validate(self._changed(key, content, variant.changes) if variant else content)
        except ValidationError as error:
            said = one_line(error).replace("data.hyperparameters.", "start.", 1).removeprefix("data.")
            raise ConfigError(f"variants.{key.method}.{said}") from None

    def _changed(self, key: RunKey, content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
        """Return the content of a specification with the changes of a variant."""
        start, tuned = changes.get("start", {}), self.datasets[key.dataset].hyperparameters
        for name in start:
            if name not in tuned:
                what = unknown(f"hyperparameter of {key.dataset}", name, tuned)
                raise ConfigError(f"variants.{key.method}.start.{name}: {what}")
        own = {name: value for name, value in changes.items() if name in RunSpec.model_fields}
        data = {name: value for name, value in changes.items() if name in Dataset.model_fields}
        data["hyperparameters"] = {name: {"start": value} for name, value in start.items()}
        return merge(content, {**own, "data": data, "changes": changes})

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
        _load_plugins(content)
        return Protocol.model_validate(content)
    except ValidationError as error:
        said = one_line(error)
    except ConfigError as error:
        said = str(error)
    raise ConfigError(f"{blamed(sources, said.partition(': ')[0])}: {said}")


def _load_plugins(content: Mapping[str, Any]) -> None:
    """Register what plug-ins declare, before anything else is checked."""
    files = content.get("plugins")
    if isinstance(files, list) and all(isinstance(file, str) for file in files):
        try:
            load_plugins(files)
        except ValueError as error:
            raise ConfigError(f"plugins: {error}") from None


def _read_by(kind: type[Options]) -> Any:
    """Return the type of a field with these options."""
    return Annotated[kind, BeforeValidator(partial(read_options, kind)), Field(validate_default=True)]
