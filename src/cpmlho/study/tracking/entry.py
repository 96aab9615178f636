"""What the project stores in MLflow: one entry for each run, and one for the tables and figures.

A run's entry gets tags, parameters and the dataset at the start, metrics and nested trials as their rows arrive, and
final metrics, files and the status at the end. An entry rebuilt from the files has the same content.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import logging
import math
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from filelock import FileLock

from cpmlho.study import results as files
from cpmlho.study.results import HISTORY, HYPERPARAMETERS, METRICS, PLANES, TRIALS, Row, RunResult
from cpmlho.study.spec import RunKey, RunSpec
from cpmlho.study.tracking.place import TRACKING_URI, command, database, folder_name, one_line, shown

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
ENVIRONMENT = {  # read by MLflow's client; it does not replace what the user has set
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",  # waits of 0, 2, 4, 8 and 16 seconds: a server may be restarted
    RETRIES: "5",
}
LOCK_SECONDS = 60.0  # creating the tables takes 2 to 7
BUSY_SECONDS = 20.0  # as long as MLflow waits for a busy SQLite

JOB_KEY = "workflow.job_key"
DIGEST = "files_sha256"
LAYOUT = b"3"  # version of an entry's layout: after a change, `track` writes every entry again
NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
TIMES = ("train_seconds", "train_cpu_seconds", "evaluation_seconds", "total_seconds")
FINAL = [f"metrics.`final_{name}`" for name in ("val_loss", "test_loss", "train_loss", "val_acc", "test_acc")]
WIDTHS = {"attributes.`Run Name`": 290, "runDateAndNestInfo": 110, "duration": 80}  # pixels of the columns
WIDTHS |= dict.fromkeys([*FINAL, "tags.`seed`", "tags.`method`", "tags.`status`"], 110)
VIEW = {  # of the printed link: these columns, the best run first
    "selectedColumns": [*WIDTHS][3:],
    "columnOrder": [*WIDTHS],
    "columnWidths": WIDTHS,
    "orderByKey": FINAL[0],
    "orderByAsc": True,
}
LINK = "runs?viewStateShareKey=losses&workflowType=machine_learning"

Tables = Mapping[str, Sequence[Row]]
Points = Mapping[tuple[str, int], Any]  # by metric and step
Clock = Callable[[int], int]  # from a step to milliseconds since the epoch


class StoreError(Exception):
    """A store that needs a person's help; the message names the remedy."""


class Store:
    """The experiments of one results folder in an MLflow store; every method may raise MLflow's errors."""

    def __init__(self, uri: str, results: Path) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            Path.home()
        except RuntimeError:  # MLflow needs one, and the user of a container may have none
            os.environ["HOME"] = tempfile.gettempdir()
        from mlflow import MlflowClient  # takes a second, and must come after the settings

        if "MLFLOW_LOGGING_LEVEL" not in os.environ:  # a job's log is for the job
            for name in ("mlflow", "alembic", "urllib3.connectionpool"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
        self.uri, self._database = uri, database(uri)
        self._prefix = f"cpmlho/{folder_name(results, uri)}/"
        if self._database is not None:
            prepare(self._database)
        self.client = MlflowClient(uri)

    def entries(self, group: str, query: str = "") -> list[Any]:
        """Return the entries of a dataset, or of the summary, including nested ones but not deleted ones."""
        runs: list[Any] = []
        token: str | None = ""
        found = self.client.get_experiment_by_name(self._prefix + group)
        while found is not None and token is not None:  # page by page, so that a server answers within seconds
            page = self.client.search_runs([found.experiment_id], query, page_token=token or None)
            runs, token = [*runs, *page], page.token or None
        return runs

    def of(self, group: str, key: str) -> list[Any]:
        """Return the entries of a key."""
        return self.entries(group, f"tags.`{JOB_KEY}` = '{key}'")

    def trials(self, group: str, run: Any) -> list[Any]:
        """Return the entries that are nested under another."""
        return self.entries(group, f"tags.`{PARENT}` = '{run.info.run_id}'")

    def close(self, group: str, run: Any) -> None:
        """Mark an open entry and its open trials as killed."""
        if run.info.status == "RUNNING":
            for each in (*self.trials(group, run), run):
                if each.info.status == "RUNNING":
                    self.client.set_terminated(each.info.run_id, "KILLED")

    def remove(self, group: str, run: Any) -> None:
        """Delete an entry, restorably as MLflow does, after its trials, so that an interrupted call can be repeated."""
        self.close(group, run)
        for each in (*self.trials(group, run), run):
            self.client.delete_run(each.info.run_id)

    def holds(self, group: str, run: Any, paths: Mapping[str, Path], trials: int = 0) -> bool:
        """Return whether an entry was made from these files, and still has all of them and as many trials."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if run.info.status != "FINISHED" or run.data.tags.get(DIGEST) != digest(paths):
            return False
        folders = {name.rpartition("/")[0] for name in paths}
        # The client's own listing also asks for logged models, which a server of MLflow 2 does not have.
        stored = get_artifact_repository(run.info.artifact_uri, tracking_uri=self.uri)
        found = [item for folder in folders for item in stored.list_artifacts(folder)]
        sizes = {item.path: item.file_size for item in found if not item.is_dir}
        if sizes != {name: path.stat().st_size for name, path in paths.items()}:
            return False
        return not trials or [each.info.status for each in self.trials(group, run)] == ["FINISHED"] * trials

    def link(self, page: str, groups: Sequence[str]) -> str:
        """Return the link to the first of these groups that has an experiment, with the view that shows its results."""
        found = filter(None, (self.client.get_experiment_by_name(self._prefix + group) for group in groups))
        number = next((each.experiment_id for each in found), None)
        where = "experiments?workflowType=machine_learning" if number is None else f"experiments/{number}/{LINK}"
        return f"{page}/#/{where}"

    def experiment(self, group: str) -> str:
        """Return the id of an experiment, which is created if it does not exist."""
        from mlflow.exceptions import MlflowException

        name = self._prefix + group
        if (found := self.client.get_experiment_by_name(name)) is None:
            note = f"A view of the files under `{self._prefix[7:-1]}`. Trials are nested under their search."
            tags = {NOTE: note, "mlflow.sharedViewState.losses": json.dumps(VIEW)}
            try:
                return str(self.client.create_experiment(name, self._database and artifacts(self._database), tags))
            except MlflowException:  # another process may have been faster
                if (found := self.client.get_experiment_by_name(name)) is None:
                    raise
        if found.lifecycle_stage != "active":
            restore = f"{command('mlflow')} experiments restore --experiment-id {found.experiment_id}"
            raise StoreError(
                f"the experiment {name} was deleted in MLflow's page; bring it back with"
                f" `{TRACKING_URI}={shown(self.uri)} {restore}`, then run `python -m cpmlho track`"
            )
        return str(found.experiment_id)


def artifacts(path: Path) -> str:
    """Return the address of the artifacts: next to the database, whatever the working directory is."""
    return (path.resolve().parent / "mlruns" / "cpmlho").as_uri()


def prepare(path: Path) -> None:
    """Create the database's tables if there are none, and correct the addresses of artifacts if it was moved.

    MLflow alone is not enough. It tries for minutes to open a file of another kind. It cannot complete tables that a
    killed process left half-made, so they are made elsewhere and copied in one transaction. It writes the address of
    its default experiment into SQL without escaping. It keeps absolute paths, and would write to the old folder after a
    move.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    if "?" in str(path):
        raise StoreError("the path of a database must not contain ?; name another one with MLFLOW_TRACKING_URI")
    path.parent.mkdir(parents=True, exist_ok=True)
    here, alone = artifacts(path), FileLock(f"{path}.lock", timeout=LOCK_SECONDS)
    with alone, closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as target, target:
        target.execute("BEGIN IMMEDIATE")  # fails here if the file is not a database, or cannot be written
        target.rollback()
        if target.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            with tempfile.TemporaryDirectory() as folder:
                SqlAlchemyStore(f"sqlite:///{folder}/new.db", "file:///mlruns")
                with closing(sqlite3.connect(f"{folder}/new.db")) as source:
                    source.backup(target)
            default = f"{here.removesuffix('cpmlho')}0"
            target.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (default,))
        ours = "SELECT DISTINCT artifact_location FROM experiments WHERE name LIKE 'cpmlho/%'"
        for (old,) in target.execute(ours).fetchall():
            if old != here and old.startswith("file:") and old.endswith("/mlruns/cpmlho"):
                for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
                    new, under = f"?2 || substr({column}, length(?1) + 1)", f"substr({column}, 1, length(?1)) = ?1"
                    target.execute(f"UPDATE {table} SET {column} = {new} WHERE {under}", (old, here))


class Entry:
    """Writes one entry; if its block ends without `end`, the entry is marked as failed or killed.

    An earlier finished entry of the key stays until this one is finished. Earlier open ones are of dead processes.
    """

    def __init__(self, store: Store, group: str, name: str, key: str, tags: Mapping[str, str], started: int) -> None:
        self._store, self._client, self._group, self._key, self._ended = store, store.client, group, key, False
        self._experiment = store.experiment(group)
        for run in store.of(group, key):
            if run.info.status != "FINISHED":
                store.remove(group, run)
        self._id = self._create(name, {**tags, JOB_KEY: key}, started)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._ended:
            return
        status, tags = "KILLED", {"status": "killed"}
        if isinstance(error, Exception):
            status, tags = "FAILED", {"status": "not tracked", "reason": one_line(error, self._store.uri)}
            os.environ[RETRIES] = "0"  # the store may be what failed
        with suppress(Exception):
            self.end(status, tags, now())

    def _create(self, name: str, tags: Mapping[str, str], started: int) -> str:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # the user of a container may have no name
            user = "unknown"
        tags = {**tags, "mlflow.user": user, "mlflow.source.type": "LOCAL"}
        return str(self._client.create_run(self._experiment, started, tags, name).info.run_id)

    def log(self, points: Points, at: Clock, params: Mapping[str, Any] | None = None, run_id: str = "") -> None:
        """Log metrics and parameters. NaN is kept; metrics that are text, None or infinite are left out."""
        from mlflow.entities import Metric, Param

        metrics = [
            Metric(name, value, at(step), step)
            for (name, step), value in points.items()
            if isinstance(value, int | float) and not math.isinf(value)  # MLflow would turn inf into 1.8e308
        ]
        pairs = [Param(name, str(value)) for name, value in (params or {}).items()]
        self._client.log_batch(run_id or self._id, metrics, pairs, synchronous=True)

    def attach(self, paths: Mapping[str, Path]) -> None:
        """Log files as artifacts, under their names."""
        for name, path in paths.items():
            self._client.log_artifact(self._id, str(path), str(Path(name).parent) if "/" in name else None)

    def end(self, status: str, tags: Mapping[str, str], ended: int) -> None:
        """Set the last tags, close the entry, and keep one entry of its key: the newest finished one, else this."""
        from mlflow.entities import RunTag

        self._client.log_batch(self._id, tags=[RunTag(*each) for each in tags.items()], synchronous=True)
        self._client.set_terminated(self._id, status, ended)
        self._ended = True
        earlier = [run for run in self._store.of(self._group, self._key) if run.info.run_id != self._id]
        superseded = earlier if status == "FINISHED" else [self._client.get_run(self._id)] if earlier else []
        for run in superseded:
            self._store.remove(self._group, run)


class RunEntry(Entry):
    """Writes the entry of a run from its rows, as they arrive, and its files; `at` returns the time of a step."""

    def __init__(self, store: Store, spec: RunSpec, at: Clock) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.exceptions import MlflowException

        self._spec, self._at = spec, at
        self._step = 0  # at which the next trial of a search begins
        key = str(RunKey(spec.dataset, spec.method, spec.seed))
        content = spec.model_dump()
        sums = content["data"].pop("sha256")
        note = f"**{spec.method}** on **{spec.dataset}**, seed {spec.seed}: a view of the files in `runs/{key}`."
        line = f"python -m cpmlho run {spec.dataset} {spec.method} {spec.seed}"
        tags = {f"data.sha256.{name}": value for name, value in sums.items()} | labels(spec)
        super().__init__(store, spec.dataset, title(spec), key, {**tags, NOTE: note, "mlflow.source.name": line}, at(0))
        self.log({}, at, dict(flatten(content)))
        folder, profile = json.dumps({"uri": f"{spec.data_dir}/{spec.data.folder}"}), json.dumps(sums, sort_keys=True)
        data = Dataset(spec.dataset, hashlib.sha256(profile.encode()).hexdigest()[:16], "local", folder, None, profile)
        inputs = [DatasetInput(data, [InputTag("mlflow.data.context", "training")])]
        try:
            self._client.log_inputs(self._id, inputs)
        except MlflowException:  # another run may have logged the same dataset in the same moment
            self._client.log_inputs(self._id, inputs)

    def add(self, tables: Tables) -> None:
        """Log new rows: metrics against the step, and each trial of a search, one evaluation, as a nested run."""
        if found := curves(tables):
            self.log(found, self._at)
        for evaluation, row in zip(tables.get(HISTORY, ()), tables.get(TRIALS, ()), strict=False):
            began, self._step = self._step, int(evaluation["step"])
            ended = self._at(self._step)
            tags = {**labels(self._spec), PARENT: self._id, "status": str(row["status"])}
            trial = self._create(f"trial{row['trial']}", tags, self._at(began))
            points = {(name, self._step - began): row[name] for name in (*METRICS, "seconds")}
            values = {name: row[name] for name in self._spec.data.hyperparameters}
            self.log(points, lambda _, ended=ended: ended, values, trial)  # type: ignore[misc]
            self._client.set_terminated(trial, "FINISHED", ended)

    def finish(self, result: RunResult, folder: Path) -> None:
        """Log the result and the files, and close the entry; that a run diverged stands in its status tag."""
        ended, paths, commit = self._at(result.steps), run_files(folder), result.git_commit.removesuffix("-dirty")
        values = {f"final_{name}": getattr(result.final, name) for name in METRICS}
        values |= {"final_train_loss": result.train_loss, "best_val_loss": result.best.val_loss}
        values |= result.model_dump(include={*TIMES, "peak_memory_mb"})
        points = {(name, 0): value for name, value in values.items()}
        if HYPERPARAMETERS not in paths:
            points |= {(f"hyperparameter/{name}", result.steps): each for name, each in result.hyperparameters.items()}
        self.log(points, lambda _: ended)
        self.attach(paths)
        tags = {"status": result.status, "device": result.device, "precision": result.precision}
        tags |= {"mlflow.source.git.commit": commit, "commit": commit[:12]}
        tags |= {"git.dirty": str(commit != result.git_commit).lower(), DIGEST: digest(paths)}
        self.end("FINISHED", tags, ended)


def now(_: int = 0) -> int:
    """Return the time in milliseconds since the epoch."""
    return int(time.time() * 1000)


def title(spec: RunSpec) -> str:
    """Return a run's name: method and seed, then the variant, because a narrow column hides the end."""
    variant = f"_{spec.method}_".replace(f"_{spec.algorithm}_", "_").strip("_")
    return f"{spec.algorithm} seed{spec.seed} {variant}".strip()


def labels(spec: RunSpec) -> dict[str, str]:
    """Return the tags by which runs and trials are grouped."""
    change = ", ".join(f"{name} {value}" for name, value in flatten(spec.changes)) or "none"
    names = {"method": spec.method, "dataset": spec.dataset, "base": spec.algorithm, "precision": spec.precision}
    return {**names, "seed": str(spec.seed), "change": change}


def curves(tables: Tables) -> dict[tuple[str, int], Any]:
    """Return the metrics in a run's rows by name and step, the losses first."""
    found: dict[tuple[str, int], Any] = {}
    for row in tables.get(HISTORY, ()):
        names = [*METRICS, *sorted(row.keys() - {*METRICS, "epoch", "step"})]
        found |= {(name, int(row["step"])): row[name] for name in names}
    for row in tables.get(HYPERPARAMETERS, ()):
        names = [name for name in row if name not in ("update", "step")]
        found |= {(f"hyperparameter/{name}", int(row["step"])): row[name] for name in names}
    for step, rows in groupby(tables.get(PLANES, ()), lambda row: int(row["step"])):
        oldest, *_, newest = 2 * sorted(rows, key=lambda row: int(row["plane"]))
        found |= {(f"planes/{name}", step): newest[name] for name in ("g", "gradient_share")}
        found |= {("planes/newest_phi", step): newest["phi"]}  # its mu is the initial one
        found |= {(f"planes/oldest_{name}", step): oldest[name] for name in ("phi", "mu")}
    return found


def run_files(folder: Path) -> dict[str, Path]:
    """Return the files of a run that belong into its entry, by name."""
    network = [path for path in [folder / files.NETWORK] if path.exists()]
    return {path.name: path for path in (folder / files.RESULT, *files.own_tables(folder), *network)}


def digest(paths: Mapping[str, Path]) -> str:
    """Return the SHA-256 of the files that an entry is made from, and of its layout."""
    found = hashlib.sha256(LAYOUT)
    for name, path in paths.items():
        found.update(name.encode() + path.read_bytes())
    return found.hexdigest()


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings, each with its path."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
