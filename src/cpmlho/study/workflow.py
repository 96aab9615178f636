"""What the Snakemake rules use: the protocol of a command line, which runs are done, and what each job gets.

Every command imports this first, so it imports neither torch nor pandas nor mlflow.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from typing import Protocol as Shape

from cpmlho.study.files import write_text
from cpmlho.study.harness.provenance import plugin_sha256
from cpmlho.study.numerics import NUMERICS
from cpmlho.study.protocol import Protocol, load
from cpmlho.study.reading import read_text
from cpmlho.study.registry import NETWORKS
from cpmlho.study.results import RESULT, ResultError, data_file, pinned_at, read_result, run_dir, with_values
from cpmlho.study.settings import IDX_FILES
from cpmlho.study.spec import PLACE, RunKey, RunSpec
from cpmlho.study.strict import ConfigError
from cpmlho.study.tracking.place import exported, shown

STUDY = Path(__file__).parent
DIGITS = 16  # of a digest


class Wildcards(Shape):
    """The wildcards in the paths of a run."""

    dataset: str
    method: str
    seed: str


def key_of(wildcards: Wildcards) -> RunKey:
    """Return the key of the run that the wildcards name."""
    return RunKey(wildcards.dataset, wildcards.method, int(wildcards.seed))


def overrides(entries: Sequence[str]) -> tuple[list[Path], dict[str, Any]]:
    """Split the `NAME=VALUE` entries of Snakemake's `--config` into overlay files, in their order, and settings.

    Raises:
        ConfigError: an entry is not YAML, or repeats a setting.
    """
    files: list[str] = []
    settings: dict[str, Any] = {}
    for name, _, text in (entry.partition("=") for entry in entries):
        value = read_text(text, f"--config {name}")
        if name == "overlay":
            files += value if isinstance(value, list) else [value]
        elif name in settings:
            raise ConfigError(f"--config {name}: is given twice")
        else:
            settings[name] = value
    if not all(isinstance(file, str) for file in files):
        raise ConfigError("--config overlay: must be a file, or a list of files such as [a.yaml, b.yaml]")
    return [Path(file).expanduser() for file in files], settings


def read_protocol(
    root: Path, configfiles: Sequence[Path], entries: Sequence[str], command: Sequence[str] = ()
) -> Protocol:
    """Read the protocol of a command: config.yaml, then overlays, then the settings in `--config`.

    This reads the files itself, so that an error names its file and line, a repeated key is an error, and numbers in
    `--config` are numbers. Overlays are best given as `--config overlay=FILE`: Snakemake reads a `--configfile` itself
    first, and its messages about one that cannot be read are its own.

    Args:
        root: the folder of the Snakefile and of config.yaml.
        configfiles: the files after `--configfile`.
        entries: the entries after `--config`.
        command: the command line; Snakemake keeps only the last `--config` and `--configfile` of several.

    Raises:
        ConfigError: a file or an entry cannot be read, is given twice, or has a wrong setting.
    """
    for option in ("--config", "--configfile"):
        if command.count(option) > 1:
            raise ConfigError(f"{option}: is given twice; give all its values after one")
    overlays, settings = overrides(entries)
    files = [Path(os.path.relpath(file)) for file in [root / "config.yaml", *configfiles, *overlays]]
    protocol = load(files, settings)
    if re.search("^-|[{}]", protocol.results_dir):
        what = "must not begin with a dash, or contain braces, which are Snakemake's wildcards"
        raise ConfigError(f"results_dir: {what}, got {protocol.results_dir}")
    return protocol


def digest(*parts: str | bytes) -> str:
    """Return a short digest of texts and contents."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return whole.hexdigest()[:DIGITS]


def decisive(spec: RunSpec, without: Iterable[str] = ()) -> dict[str, Any]:
    """Return the settings that decide a run's numbers, as in JSON, except those named in `without`."""
    return spec.model_dump(mode="json", exclude=PLACE | set(without))


@dataclass(frozen=True, eq=False)
class Plan:
    """A protocol as the rules see it: which runs are done, paths, parameters, threads and GPUs.

    Attributes:
        protocol: what to run.
        cores: the number after `--cores`.
        gpus: the GPUs that the runs share.
    """

    protocol: Protocol
    cores: int = 1
    gpus: Sequence[str] = ()

    @cached_property
    def keys(self) -> dict[RunKey, int]:
        """The runs of the protocol, numbered in their order."""
        return {key: place for place, key in enumerate(self.protocol.keys())}

    @cached_property
    def results(self) -> list[str]:
        """The result files of all runs."""
        return [self.result(key) for key in self.keys]

    def result(self, key: RunKey) -> str:
        """Return the result file of a run."""
        return str(run_dir(self.protocol.results_dir, key) / RESULT)

    @cached_property
    def text(self) -> str:
        """The protocol as the jobs read it, without the tracking store: its address may hold a password."""
        nowhere = self.protocol.tracking.model_copy(update={"uri": None})
        return self.protocol.model_copy(update={"tracking": nowhere}).model_dump_json(indent=1) + "\n"

    @property
    def file(self) -> str:
        """The file for `text`; its name depends on the text, so that no job reads another protocol."""
        return str(Path(self.protocol.results_dir, "logs", f"protocol-{digest(self.text)}.json"))

    def write(self) -> None:
        """Write `file`, and remove those of earlier commands."""
        for earlier in Path(self.file).parent.glob("protocol-*.json"):
            if earlier != Path(self.file):
                earlier.unlink()
        write_text(Path(self.file), self.text)

    @property
    def store(self) -> str | None:
        """The address of the tracking store without secrets; None: `mlflow.db` in the working directory."""
        uri = self.protocol.tracking.uri or exported()
        return shown(uri) if uri else None

    @cache  # noqa: B019  (one plan per process)
    def spec(self, key: RunKey) -> RunSpec:
        """Return the run's settings."""
        return self.protocol.resolve(key)

    @cache  # noqa: B019
    def done(self, key: RunKey) -> bool:
        """Return whether the run's files record the settings, plug-ins and `NUMERICS` of this plan.

        File times and Snakemake's records do not count, because results may have been copied or unpacked.
        """
        try:
            found, spec = read_result(Path(self.result(key))), self._as_run(key)
        except (ResultError, ConfigError):
            return False
        return (
            decisive(found.spec) == decisive(spec)
            and found.numerics == NUMERICS
            and found.plugins == plugin_sha256(spec.data, spec.algorithm)
            and all(self.done(source) for source in self._sources(key))
        )

    def _as_run(self, key: RunKey) -> RunSpec:
        spec, results_dir = self.spec(key), self.protocol.results_dir
        if not spec.data.reader:
            return with_values(spec, results_dir)
        from cpmlho.study.provision import as_run  # imports numpy, as the plug-in that reads the data does

        return as_run(spec, results_dir)

    def _sources(self, key: RunKey) -> list[RunKey]:
        """Return the run of the same seed that this one takes its hyperparameter values from, if any."""
        method = self.spec(key).values_of
        return [key._replace(method=method)] if method else []

    def needs(self, key: RunKey) -> list[str]:
        """Return the files that a run waits for; none if it is done."""
        if self.done(key):
            return []
        sources = [self.result(source) for source in self._sources(key)]
        return [str(data_file(self.protocol.results_dir, key.dataset)), *sources]

    def provided(self, name: str) -> bool:
        """Return whether a dataset's files are in place and recorded with the configured checksums.

        The runs verify the content of the files, and the arrays of a user's own reader.
        """
        dataset = self.protocol.datasets[name]
        raw = Path(self.protocol.data.dir, dataset.folder, "raw")
        try:
            recorded = pinned_at(self.protocol.results_dir, name)
        except ResultError:
            return False
        if dataset.reader:
            return recorded is not None
        return recorded == dataset.sha256 and all((raw / file).is_file() for file in IDX_FILES)

    def made_from(self) -> str:
        """Return a digest of everything that tables, figures and report depend on: settings, runs, and their code."""
        settings = json.loads(self.text)
        settings["data"] = {"valid_fraction": self.protocol.data.valid_fraction}  # not where the data come from
        code = [path for path in sorted(STUDY.glob("report/**/[!.]*")) if "__pycache__" not in path.parts]
        tables = Path(self.protocol.multiverse or "", "tables")
        multiverse = [tables / "multiverse.csv", tables / "divergence.csv"]
        files = [*map(Path, self.results), STUDY / "results.py", *code, *multiverse]
        return digest(json.dumps(settings, sort_keys=True), *(file.read_bytes() for file in files if file.is_file()))

    def gpu(self, wildcards: Wildcards) -> str:
        """Return the run's GPU; runs take turns in the protocol's order, so that seeds use different GPUs."""
        key = key_of(wildcards)
        return self.gpus[self.keys.get(key, key.seed) % len(self.gpus)] if self.gpus else ""

    def threads(self, wildcards: Wildcards) -> int:
        """Return how many trials of a random search run at the same time, so that as few cores as possible are idle."""
        spec = self.spec(key_of(wildcards))
        if self.gpus or spec.trials is None or spec.algorithm != "random_search":
            return 1
        return math.ceil(spec.trials / math.ceil(spec.trials / max(1, self.cores)))

    def epochs(self, key: RunKey) -> int:
        """Return the run's approximate length, in epochs of the paper's MLP without tuning."""
        spec = self.spec(key)
        return round((spec.trainings if spec.trials else 2) * spec.data.epochs * NETWORKS[spec.data.network.kind].cost)
