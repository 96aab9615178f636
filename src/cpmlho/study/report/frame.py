"""The runs that a protocol asks for, read once, and the tables made of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from cpmlho.study.protocol import Protocol
from cpmlho.study.provision import as_run
from cpmlho.study.report.along import KEY, read_along
from cpmlho.study.report.style import label_of
from cpmlho.study.results import METRICS, PLANES, RESULT, ResultError, read_result, run_dir
from cpmlho.study.spec import PLACE, RunKey, RunSpec
from cpmlho.study.strict import ConfigError

MISSING = "missing"
LOSS = "final_val_loss"
_COPIED = (
    *("steps", "train_seconds", "train_cpu_seconds", "evaluation_seconds", "total_seconds", "peak_memory_mb"),
    *("device", "git_commit", "numerics", "precision", "train_loss"),
)
_PAPERS = ("dropout0", "dropout1", "dropout2", "dropout_fc", "cutout_length", "cutout_holes")  # hyperparameters
_METRICS = tuple(f"{which}_{metric}" for which in ("final", "best") for metric in METRICS)
_NAMED = {"dataset", "method", "seed", "changes"}  # what a specification is called, which decides no number
# Columns that look like numbers in a csv file but are text, or are whole numbers with gaps.
_TYPES = {
    **dict.fromkeys(("paper", "against", "comparator", "choices", "git_commit"), "str"),
    **dict.fromkeys(("data_digest", "versions_digest", "config_digest", "settings_digest"), "str"),
    **dict.fromkeys(("steps", "trials", "numerics"), "Int64"),
}


class Study:
    """A protocol with its runs and tables, each made when first asked for."""

    def __init__(
        self,
        protocol: Protocol,
        make: Callable[[Study, str], pd.DataFrame],
        tables: Mapping[str, pd.DataFrame] | None = None,
    ) -> None:
        """Hold a protocol.

        Args:
            protocol: the protocol.
            make: computes the table of a name.
            tables: those that are already there, by name.
        """
        self.protocol = protocol
        self._make = make
        self._tables = dict(tables or {})
        self._along: dict[tuple[str, RunKey], pd.DataFrame] = {}

    def table(self, name: str) -> pd.DataFrame:
        """The numbers of a registered table."""
        if name not in self._tables:
            self._tables[name] = self._make(self, name)
        return self._tables[name]

    @property
    def runs(self) -> pd.DataFrame:
        """Every run that the protocol asks for, a row each; a run without a result has the status `missing`."""
        return self.table("runs")

    @cached_property
    def ended(self) -> pd.DataFrame:
        """The runs that have a result: finished, or diverged."""
        return self.runs[self.runs["status"] != MISSING]

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
        """The specification of a method's runs on a dataset, with the protocol's first seed."""
        return self.protocol.resolve(RunKey(dataset, method, self.protocol.run.seeds[0]))

    def folder(self, dataset: object) -> str:
        """A dataset's name as people write it."""
        datasets = self.protocol.datasets
        return datasets[str(dataset)].folder if dataset in datasets else str(dataset)

    def algorithm(self, dataset: str, method: str) -> str:
        """The method that a variant is a variant of; for a method, itself."""
        return self.spec(dataset, method).algorithm

    def words(self, method: str) -> str:
        """What tables and figures call a method or variant."""
        variant = self.protocol.variants.get(method)
        return (variant and variant.label) or label_of(method)

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


def framed(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table, which has the column `dataset` even if there is none."""
    listed = list(rows)
    return pd.DataFrame(listed, columns=None if listed else ["dataset"])


def read_csv(source: Path) -> pd.DataFrame:
    """A table that `tables` has written, with the types of its columns."""
    rows = pd.read_csv(source, dtype=_TYPES)
    return rows.fillna({name: "" for name in ("paper", "comparator", "choices") if name in rows})


def _keys(runs: pd.DataFrame) -> list[RunKey]:
    return [RunKey(*key) for key in runs[KEY].itertuples(index=False)]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _asked(protocol: Protocol, key: RunKey) -> RunSpec:
    """The specification that the protocol asks for, with the values of the run that it names, if that has ended."""
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
        "settings_digest": _digest(spec.model_dump(mode="json", exclude=PLACE | _NAMED)),
        "stale": spec.model_dump(exclude=PLACE) != asked.model_dump(exclude=PLACE),
    }
    if result:
        for which, metrics in (("final", result.final), ("best", result.best)):
            row |= {f"{which}_{name}": value for name, value in asdict(metrics).items()}
        row |= {f"hyperparameter_{name}": value for name, value in result.hyperparameters.items()}
        row |= {name: getattr(result, name) for name in _COPIED}
        row["processor"] = result.environment.get("processor") or "not recorded"
        row["data_digest"] = _digest(result.data_sha256)
        libraries = {name: each for name, each in result.versions.items() if name != "cpmlho"}  # it has `NUMERICS`
        row["versions_digest"] = _digest(libraries)
    return row


def columns(protocol: Protocol) -> list[str]:
    """The columns of all runs, with those of every hyperparameter that a dataset tunes."""
    tuned = [name for dataset in protocol.datasets.values() for name in dataset.hyperparameters]
    names = dict.fromkeys([*_PAPERS, *tuned])
    return [
        *("dataset", "method", "algorithm", "seed", "status", *_METRICS),
        *(f"hyperparameter_{name}" for name in names),
        *("g_ratio", *_COPIED, "network", "epochs", "trials"),
        *("processor", "data_digest", "versions_digest", "config_digest", "settings_digest", "stale"),
    ]


def read_runs(protocol: Protocol) -> pd.DataFrame:
    """Every run that the protocol asks for, a row each; a run without a result has the status `missing`.

    Raises:
        ResultError: a result file is damaged.
    """
    rows = [_row(protocol, key) for key in protocol.keys()]  # noqa: SIM118
    runs = pd.DataFrame(rows, columns=columns(protocol))
    runs = runs.astype(
        {"steps": "Int64", "trials": "Int64", "numerics": "Int64", "train_loss": float, "g_ratio": float}
    )
    with_planes = [key for key in _keys(finished(runs)) if (run_dir(protocol.results_dir, key) / PLANES).exists()]
    for planes in read_along(protocol.results_dir, with_planes, PLANES):
        for key, recorded in planes.groupby(KEY, sort=False):
            runs.loc[(runs[KEY] == list(key)).all(axis=1), "g_ratio"] = g_ratio(recorded)
    return runs


def g_ratio(planes: pd.DataFrame) -> float:
    """The last g over the first, of the layer where it fell least; NaN after one epoch, when no change is known."""
    if planes["epoch"].nunique() < 2:
        return float("nan")
    layers = [g for _, g in planes.groupby("layer")["g"]] if "layer" in planes else [planes["g"]]
    return float(max(g.iloc[-1] / g.iloc[0] for g in layers))


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
