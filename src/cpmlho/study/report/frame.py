"""All runs that the protocol asks for, read once, with the tables along them and the tables made of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from cpmlho.study.harness.provenance import plugin_sha256
from cpmlho.study.made import intact
from cpmlho.study.numerics import NUMERICS
from cpmlho.study.protocol import Protocol
from cpmlho.study.provision import as_run
from cpmlho.study.report.along import KEY, read_along
from cpmlho.study.report.tables import TABLES, load
from cpmlho.study.results import METRICS, PLANES, RESULT, ResultError, read_result, run_dir
from cpmlho.study.spec import PLACE, RunKey, RunSpec
from cpmlho.study.strict import ConfigError

MISSING = "missing"
LOSS = "final_val_loss"
RUNAWAY = 1.5  # times its first value: where |w_e - w_h|, which the cutting planes are there to hold, has run away
_COPIED = (
    *("steps", "train_seconds", "train_cpu_seconds", "evaluation_seconds", "total_seconds", "peak_memory_mb"),
    *("device", "git_commit", "numerics", "precision", "train_loss"),
)
_PAPERS = ("dropout0", "dropout1", "dropout2", "dropout_fc", "cutout_length", "cutout_holes")  # hyperparameters
_METRICS = tuple(f"{which}_{metric}" for which in ("final", "best") for metric in METRICS)
# What looks like a number in a csv file and is none, or has gaps and is whole.
_TYPES = {
    **dict.fromkeys(("paper", "against", "comparator", "git_commit"), "str"),
    **dict.fromkeys(("data_digest", "versions_digest", "config_digest"), "str"),
    **dict.fromkeys(("steps", "trials", "numerics"), "Int64"),
}


class Study:
    """The protocol with its runs and tables, each made when first asked for, or read from the files of `tables`."""

    def __init__(self, protocol: Protocol, tables: Mapping[str, pd.DataFrame] | None = None) -> None:
        self.protocol = protocol
        self._tables = dict(tables or {})
        self._along: dict[tuple[str, RunKey], pd.DataFrame] = {}

    @classmethod
    def written(cls, protocol: Protocol) -> Study:
        """The study as the verb `tables` has written it.

        Raises:
            ResultError: a table is missing, or they are of other runs than the protocol's.
        """
        folder = Path(protocol.results_dir) / "tables"
        paths = {name: folder / f"{name}.csv" for name in TABLES}
        intact(folder, [path.name for path in paths.values()], "tables")
        study = cls(protocol, {name: read_csv(path) for name, path in paths.items()})
        if list(study.runs[KEY].itertuples(index=False, name=None)) != list(protocol.keys()):
            raise ResultError(f"{paths['runs']}: of other runs than the protocol's; make the tables again")
        return study

    def table(self, name: str) -> pd.DataFrame:
        """The numbers of a registered table."""
        if name not in self._tables:
            self._tables[name] = load(name).numbers(self)
        return self._tables[name]

    @property
    def runs(self) -> pd.DataFrame:
        """Every run that the protocol asks for, a row each; a run without a result has the status `missing`."""
        return self.table("runs")

    @cached_property
    def finished(self) -> pd.DataFrame:
        """The runs that means are taken over."""
        return finished(self.runs)

    @cached_property
    def compared(self) -> pd.DataFrame:
        """The runs of the methods; variants are not in the paper's tables."""
        return self.among(self.protocol.run.methods)

    def among(self, methods: Iterable[str]) -> pd.DataFrame:
        """The runs of some methods or variants."""
        return self.runs[self.runs["method"].isin(list(methods))]

    def spec(self, dataset: str, method: str) -> RunSpec:
        """What the runs of a method on a dataset are asked to be, but for the seed."""
        return self.protocol.resolve(RunKey(dataset, method, self.protocol.run.seeds[0]))

    def along(self, name: str, runs: pd.DataFrame) -> pd.DataFrame:
        """The rows of one of the tables along these runs, each with its dataset, method and seed.

        Raises:
            ResultError: a run has no such table.
        """
        keys = _keys(runs)
        unread = [key for key in keys if (name, key) not in self._along]
        for rows in read_along(self.protocol.results_dir, unread, name):
            for (dataset, method, seed), own in rows.groupby(KEY, sort=False):
                self._along[name, RunKey(str(dataset), str(method), int(str(seed)))] = own
        found = [self._along[name, key] for key in keys if (name, key) in self._along]
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=KEY)


def read_csv(source: Path) -> pd.DataFrame:
    """A table with the types that its columns have."""
    rows = pd.read_csv(source, dtype=_TYPES)
    return rows.fillna({name: "" for name in ("paper", "comparator") if name in rows})


def _keys(runs: pd.DataFrame) -> list[RunKey]:
    return [RunKey(*key) for key in runs[KEY].itertuples(index=False)]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _asked(protocol: Protocol, key: RunKey) -> RunSpec:
    """What the protocol asks for, with another run's values where it names one that has ended."""
    asked = protocol.resolve(key)
    try:
        return as_run(asked, protocol.results_dir)
    except (ConfigError, ResultError):
        return asked


def _row(protocol: Protocol, key: RunKey) -> dict[str, Any]:
    path = run_dir(protocol.results_dir, key) / RESULT
    result = read_result(path) if path.exists() else None
    asked = _asked(protocol, key)
    spec = result.spec if result else asked
    row = {
        **key._asdict(),
        "algorithm": spec.algorithm,
        "status": result.status if result else MISSING,
        "network": spec.data.network.kind,
        "epochs": spec.data.epochs,
        "trials": spec.trials,
        "config_digest": _digest(spec.model_dump(mode="json", exclude=PLACE)),
        "stale": spec.model_dump(exclude=PLACE) != asked.model_dump(exclude=PLACE),
        "outdated": result is not None
        and (result.numerics, result.plugins) != (NUMERICS, plugin_sha256(spec.data, spec.algorithm)),
    }
    if result:
        for which, metrics in (("final", result.final), ("best", result.best)):
            row |= {f"{which}_{name}": value for name, value in asdict(metrics).items()}
        row |= {f"hyperparameter_{name}": value for name, value in result.hyperparameters.items()}
        row |= {name: getattr(result, name) for name in _COPIED}
        row["processor"] = result.environment.get("processor") or "not recorded"
        row["data_digest"] = _digest(result.data_sha256)
        row["versions_digest"] = _digest(result.versions)
    return row


def columns(protocol: Protocol) -> list[str]:
    """The columns of all runs, with those of every hyperparameter that a dataset tunes."""
    tuned = [name for dataset in protocol.datasets.values() for name in dataset.hyperparameters]
    names = dict.fromkeys([*_PAPERS, *tuned])
    return [
        *("dataset", "method", "algorithm", "seed", "status", *_METRICS),
        *(f"hyperparameter_{name}" for name in names),
        *("g_ratio", *_COPIED, "network", "epochs", "trials"),
        *("processor", "data_digest", "versions_digest", "config_digest", "stale", "outdated"),
    ]


def read_runs(protocol: Protocol) -> pd.DataFrame:
    """Every run that the protocol asks for, a row each; a run without a result has the status `missing`.

    A run whose distance between the weights ran away, which the cutting planes are there to hold, has diverged.

    Raises:
        ResultError: a result file is damaged.
    """
    rows = [_row(protocol, key) for key in protocol.keys()]  # noqa: SIM118
    runs = pd.DataFrame(rows, columns=columns(protocol))
    runs = runs.astype({"steps": "Int64", "trials": "Int64", "numerics": "Int64", "train_loss": float})
    with_planes = [key for key in _keys(finished(runs)) if (run_dir(protocol.results_dir, key) / PLANES).exists()]
    for planes in read_along(protocol.results_dir, with_planes, PLANES):
        for key, recorded in planes.groupby(KEY, sort=False):
            row, g = (runs[KEY] == list(key)).all(axis=1), recorded["g"]
            if recorded["epoch"].nunique() > 1:  # what g was at first is known after one
                runs.loc[row, "g_ratio"] = g.iloc[-1] / g.iloc[0]
            if not (g <= RUNAWAY * g.iloc[0]).all():
                runs.loc[row, "status"] = "diverged"
    return runs


def by_method(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Dataset, method and their rows, in the order of the rows."""
    for (dataset, method), group in frame.groupby(["dataset", "method"], sort=False):
        yield str(dataset), str(method), group


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that means are taken over: neither missing nor diverged."""
    return runs[runs["status"] == "done"]


def incomplete(runs: pd.DataFrame) -> str:
    """What a mean over `runs` leaves out, such as `n=2/3, 1 diverged`; empty if nothing."""
    counts = {status: int((runs["status"] == status).sum()) for status in ("diverged", MISSING)}
    left_out = [f"{count} {status}" for status, count in counts.items() if count]
    return ", ".join([f"n={len(finished(runs))}/{len(runs)}", *left_out]) if left_out else ""
