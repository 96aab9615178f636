"""What the workflow's rules compute with: the protocol of a command line, and what each job is given.

It is read before every command, so nothing here imports torch, pandas or mlflow.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from cpmlho.study.files import write_text
from cpmlho.study.harness.provenance import plugin_sha256
from cpmlho.study.numerics import NUMERICS
from cpmlho.study.protocol import Protocol, load
from cpmlho.study.registry import NETWORKS
from cpmlho.study.results import RESULT, run_dir
from cpmlho.study.spec import PLACE, RunKey, RunSpec
from cpmlho.study.strict import ConfigError
from cpmlho.study.tracking.place import exported, shown

DIGITS = 16  # of a digest that a person may have to compare


class Wildcards(typing.Protocol):
    """What Snakemake fills into the paths of a run."""

    dataset: str
    method: str
    seed: str


def relative(path: Path | str) -> Path:
    """The path from the working directory, so that a moved checkout has the same inputs as before."""
    return Path(os.path.relpath(path))


def overrides(entries: Sequence[str]) -> tuple[list[Path], dict[str, Any]]:
    """Overlays, in their order, and settings from the entries `NAME=VALUE` of Snakemake's `--config`.

    Raises:
        ConfigError: an entry is no YAML, or gives a setting a second time.
    """
    files: list[str] = []
    settings: dict[str, Any] = {}
    for name, _, text in (entry.partition("=") for entry in entries):
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"--config {name}={text}: not valid YAML") from None
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
    """The protocol of a command: config.yaml, then overlays, then the settings in `--config`.

    The files are read here and not taken from Snakemake's `config`: an error then names its file and line, a key
    given twice is one, and the numbers in `--config` are numbers. An overlay is given with `--config overlay=FILE`;
    with `--configfile FILE` too, but Snakemake reads that first, and a file that it cannot read ends in its words.

    Args:
        root: the folder of the Snakefile and of config.yaml.
        configfiles: of `--configfile`.
        entries: of `--config`.
        command: the command line, of which Snakemake itself keeps only the last `--config` and `--configfile`.

    Raises:
        ConfigError: something cannot be read, is given twice, or breaks a rule.
    """
    for option in ("--config", "--configfile"):
        if command.count(option) > 1:
            raise ConfigError(f"{option}: is given twice; give all its values after one")
    overlays, settings = overrides(entries)
    protocol = load([relative(file) for file in [root / "config.yaml", *configfiles, *overlays]], settings)
    if re.search("^-|[{}]", protocol.results_dir):
        what = "must not begin with a dash, an option's, or have braces, which are Snakemake's wildcards"
        raise ConfigError(f"results_dir: {what}, got {protocol.results_dir}")
    return protocol


def digest(text: str) -> str:
    """A short digest."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


@dataclass(frozen=True, eq=False)
class Plan:
    """What the rules ask of a protocol: paths, parameters, threads, GPUs.

    Attributes:
        protocol: what to run.
        cores: of `--cores`.
        gpus: that the runs take turns on.
    """

    protocol: Protocol
    cores: int = 1
    gpus: Sequence[str] = ()

    @cached_property
    def keys(self) -> dict[RunKey, int]:
        """The runs that the protocol asks for, with their place."""
        return {key: place for place, key in enumerate(self.protocol.keys())}

    @cached_property
    def results(self) -> list[str]:
        """The result files of all runs."""
        return [self.result(key) for key in self.keys]

    def result(self, key: RunKey) -> str:
        """The result file of a run."""
        return str(run_dir(self.protocol.results_dir, key) / RESULT)

    @cached_property
    def text(self) -> str:
        """The protocol as the jobs read it; where the runs are tracked they are told otherwise."""
        nowhere = self.protocol.tracking.model_copy(update={"uri": None})
        return self.protocol.model_copy(update={"tracking": nowhere}).model_dump_json(indent=1) + "\n"

    @property
    def file(self) -> str:
        """Where `text` lies; a job that another protocol was planned for does not find it."""
        return str(Path(self.protocol.results_dir, "logs", f"protocol-{digest(self.text)}.json"))

    @cached_property
    def reported(self) -> str:
        """A digest of what tables, figures and report may depend on: all but where data come from."""
        content = json.loads(self.text)
        content["data"] = {"valid_fraction": self.protocol.data.valid_fraction}
        return digest(json.dumps(content, sort_keys=True))

    @property
    def store(self) -> str | None:
        """The tracking store as it may be shown; None: the one beside the configuration."""
        uri = self.protocol.tracking.uri or exported()
        return shown(uri) if uri else None

    def write(self) -> None:
        """Write the file that the jobs read, in place of an earlier one."""
        file = Path(self.file)
        for earlier in file.parent.glob("protocol-*.json"):
            if earlier.name != file.name:
                earlier.unlink()
        write_text(file, self.text)

    @cache  # noqa: B019  (there is one plan a process)
    def spec(self, key: RunKey) -> RunSpec:
        """Everything that decides the run's numbers."""
        return self.protocol.resolve(key)

    def decisive(self, wildcards: Wildcards) -> str:
        """A digest of the settings that decide the run's numbers: where its data lie does not."""
        return digest(self.spec(key_of(wildcards)).model_dump_json(exclude=PLACE))

    def code(self, wildcards: Wildcards) -> str:
        """The version of the numbers, and a digest of the users' own files that the run uses."""
        spec = self.spec(key_of(wildcards))
        plugins = plugin_sha256(spec.data, spec.algorithm)
        return f"{NUMERICS} {digest(json.dumps(plugins))}" if plugins else str(NUMERICS)

    def wanted(self, wildcards: Wildcards) -> Sequence[object]:
        """What of a dataset must be there, not where: another place with the same files must repeat no run."""
        dataset = self.protocol.datasets[wildcards.dataset]
        return (dataset.folder, dataset.sha256, *plugin_sha256(dataset).values())

    def values(self, wildcards: Wildcards) -> list[str]:
        """The result that the run takes its hyperparameter values from, if it takes any."""
        key = key_of(wildcards)
        method = self.spec(key).values_of
        return [self.result(key._replace(method=method))] if method else []

    def gpu(self, wildcards: Wildcards) -> str:
        """The run's GPU: the runs of the protocol take turns in their order, so that seeds lie on different GPUs."""
        key = key_of(wildcards)
        return self.gpus[self.keys.get(key, key.seed) % len(self.gpus)] if self.gpus else ""

    def threads(self, wildcards: Wildcards) -> int:
        """How many trials of random search go side by side: as many as leave the fewest idle in the last round."""
        spec = self.spec(key_of(wildcards))
        if self.gpus or spec.trials is None or spec.algorithm != "random_search":
            return 1
        return math.ceil(spec.trials / math.ceil(spec.trials / max(1, self.cores)))

    def length(self, wildcards: Wildcards) -> int:
        """A run's length, roughly: the longest start first, or one would be left alone at the end."""
        return self.epochs(key_of(wildcards))

    def epochs(self, key: RunKey) -> int:
        """A run's length in epochs of an MLP without tuning, roughly."""
        spec = self.spec(key)
        return round((spec.trainings if spec.trials else 2) * spec.data.epochs * NETWORKS[spec.data.network.kind].cost)


def key_of(wildcards: Wildcards) -> RunKey:
    """The run that the wildcards name."""
    return RunKey(wildcards.dataset, wildcards.method, int(wildcards.seed))
