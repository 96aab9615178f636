"""One run in MLflow: the observer that logs it while it goes."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from cpmlho.study.harness.provenance import git_commit
from cpmlho.study.protocol import RunKey, RunSpec
from cpmlho.study.results import HISTORY, HYPERPARAMETERS, METRICS, PLANES, RESULT, TRIALS, Row, RunResult, read_rows
from cpmlho.study.tracking.store import NOTE, Store

DIGEST = "result_sha256"
COMMIT = "mlflow.source.git.commit"
TABLES = (HISTORY, HYPERPARAMETERS, PLANES, TRIALS)
SERIES = {  # metrics by column; a hyperparameter's is named after it
    HISTORY: {column: column for column in ("epoch", "seconds", *METRICS)},
    PLANES: {
        "phi": "plane{plane}/phi",
        "mu": "plane{plane}/mu",
        "g": "g",
        "gradient_share": "gradient_share",
    },
}
TIMES = ("train_seconds", "train_cpu_seconds", "evaluation_seconds", "total_seconds")
SUMMARY = "summary"

P = ParamSpec("P")
T = TypeVar("T")


def _never_fails(
    method: Callable[Concatenate[Tracker, P], T],
) -> Callable[Concatenate[Tracker, P], T | None]:
    """A method after whose first failure the tracker says so in one line and does nothing more."""

    @functools.wraps(method)
    def guarded(self: Tracker, /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        if self.broken:
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self.broken = True
            reason = " ".join(str(error).split())[:400] or type(error).__name__
            place = re.sub("//[^/]*@", "//", self.uri)  # without a password
            self.log(f"MLflow at {place} fails, tracking stops here, results are not affected: {reason}")
            return None

    return guarded


class Tracker:
    """Logs runs to MLflow, one after another; an `Observer`. A store that fails silences it and nothing else.

    Args:
        uri: the tracking store.
        log: takes one line of text.
    """

    def __init__(self, uri: str, log: Callable[[str], None]) -> None:
        self.uri = uri
        self.log = log
        self.broken = False
        self._spec: RunSpec | None = None
        self._run_id = ""

    @functools.cached_property
    def _store(self) -> Store:
        return Store(self.uri)

    @_never_fails
    def started(self, spec: RunSpec, tables: Mapping[str, Sequence[Row]]) -> None:
        """Begin a run with its settings and the rows that it has; an earlier one of the same name is superseded."""
        text = spec.model_dump_json(indent=1)
        key = RunKey(spec.dataset, spec.method, spec.seed)
        tags = {
            **_nouns(spec),
            **_git(git_commit()),
            "algorithm": spec.algorithm,
            "config_hash": _sha256(text)[:12],
            NOTE: f"**{spec.method}** on **{spec.dataset}**, seed {spec.seed}. "
            f"Everything that decides its numbers is in `spec.json`; this entry is a view of the files under `{key}`.",
        }
        self._run_id = self._store.begin(spec.dataset, f"{spec.method}/seed{spec.seed}", str(key), tags)
        self._spec = spec
        self._store.log(self._run_id, {}, dict(_flatten(spec.model_dump())))
        self._store.client.log_text(self._run_id, text, "spec.json")
        sums = json.dumps(spec.data.sha256, sort_keys=True)
        source = json.dumps({"uri": f"{spec.data_dir}/{spec.data.folder}"})
        self._store.log_dataset(self._run_id, spec.dataset, _sha256(sums)[:16], source, sums)
        if tables:
            self.evaluated(tables)

    def ticked(self, epoch: int) -> None:
        """Nothing to log: a trial is judged at its end."""

    @_never_fails
    def evaluated(self, tables: Mapping[str, Sequence[Row]]) -> None:
        """Log new rows: trials as nested runs, all others as metrics against the step."""
        if self._spec is None:
            return
        self._store.log(self._run_id, points(tables))
        for row in tables.get(TRIALS, ()):
            self._log_trial(self._spec, row)

    @_never_fails
    def finished(self, result: RunResult, folder: Path) -> None:
        """Log the result and its files, and close the run; a diverged run is a finished one with another tag."""
        if self._spec is None:
            return
        values = {
            **{f"final_{name}": value for name, value in asdict(result.final).items()},
            **{f"best_{name}": value for name, value in asdict(result.best).items()},
            **{f"final_{name}": value for name, value in result.hyperparameters.items()},
            **result.model_dump(include={"steps", *TIMES, "peak_memory_mb"}),
        }
        self._store.log(self._run_id, {(name, 0): value for name, value in values.items()})
        for path in (folder / name for name in (RESULT, *TABLES)):
            if path.exists():
                self._store.client.log_artifact(self._run_id, str(path))
        tags = {"status": result.status, "device": result.device, DIGEST: digest(folder), **_git(result.git_commit)}
        self._store.end(self._run_id, "FINISHED", tags)
        self._spec = None

    @_never_fails
    def failed(self, reason: str) -> None:
        """Close the run as failed."""
        if self._spec is None:
            return
        self._store.end(self._run_id, "FAILED", {"status": "failed", "reason": reason[:1000]})
        self._spec = None

    @_never_fails
    def killed(self) -> None:
        """Close the run, if it is still open, as one that could not say how it ended."""
        if self._spec is None:
            return
        self._store.end(self._run_id, "KILLED", {"status": "killed"})
        self._spec = None

    @_never_fails
    def abandoned(self, key: RunKey) -> None:
        """Close what a dead process, and its tracker with it, has left open."""
        self._store.close(key.dataset, str(key), {"status": "killed"})

    @_never_fails
    def is_logged(self, key: RunKey, folder: Path) -> bool:
        """Whether the run's live entry was made from the very result.json in `folder`."""
        return self._store.has(key.dataset, str(key), DIGEST, digest(folder))

    @_never_fails
    def summarised(self, folder: Path) -> None:
        """Log the tables, figures and report under `folder` as the one live summary."""
        note = "Tables, figures and report over all runs, as the files had them when they were last made."
        run_id = self._store.begin(SUMMARY, SUMMARY, SUMMARY, {NOTE: note})
        for name in ("tables", "figures"):
            if (folder / name).is_dir():
                self._store.client.log_artifacts(run_id, str(folder / name), name)
        if (report := folder / "report.html").exists():
            self._store.client.log_artifact(run_id, str(report))
        table = folder / "tables" / "table1.csv"
        means = {  # MLflow takes no other characters in a metric's name
            re.sub(r"[^\w./ -]", "_", "table1/{dataset}/{network}/{method}".format(**row)): row["mean"]
            for row in (read_rows(table) if table.exists() else ())
        }
        self._store.log(run_id, {(name, 0): mean for name, mean in means.items()})
        self._store.end(run_id, "FINISHED", {"status": "done"})

    def _log_trial(self, spec: RunSpec, row: Row) -> None:
        name, status, values, outcome = trial(row)
        run_id = self._store.begin_child(spec.dataset, name, self._run_id, _nouns(spec))
        self._store.log(run_id, outcome, values)
        self._store.end(run_id, "FINISHED", {"status": status})


def points(tables: Mapping[str, Sequence[Row]]) -> dict[tuple[str, int], Any]:
    """The metrics in a run's rows, by name and step; of several values for one, the last."""
    return {
        (name.format(**row), int(row["step"])): row[column]
        for file in (HISTORY, HYPERPARAMETERS, PLANES)
        for row in tables.get(file, ())
        for column, name in _series(file, row).items()
    }


def trial(row: Row) -> tuple[str, str, dict[str, Any], dict[tuple[str, int], Any]]:
    """The name, status, hyperparameters and metrics of one trial."""
    outcome = {(name, 0): row[name] for name in (*METRICS, "seconds")}
    values = {
        name: value for name, value in row.items() if name not in ("trial", "status") and (name, 0) not in outcome
    }
    return f"trial{row['trial']}", str(row["status"]), values, outcome


def digest(folder: Path) -> str:
    """SHA-256 of a run's result.json."""
    return hashlib.sha256((folder / RESULT).read_bytes()).hexdigest()


def _series(file: str, row: Row) -> Mapping[str, str]:
    own = {name: f"hyperparameter/{name}" for name in row if name not in ("update", "step")}
    return SERIES.get(file, own)


def _nouns(spec: RunSpec) -> dict[str, str]:
    return {"dataset": spec.dataset, "method": spec.method, "seed": str(spec.seed)}


def _git(commit: str) -> dict[str, str]:
    return {COMMIT: commit.removesuffix("-dirty"), "git.dirty": str(commit.endswith("-dirty")).lower()}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
