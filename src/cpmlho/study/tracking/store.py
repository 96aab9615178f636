"""What the project asks of MLflow, and the only module that imports it: a store, and runs that replace earlier ones.

Many processes share one SQLite file. MLflow creates its tables without a lock, so whoever comes first is alone; from
then on SQLite's own locks suffice.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

ENVIRONMENT = {  # read by MLflow when it is imported; what the user has set stays
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
LOCK_SECONDS = 60.0  # creating the tables takes 2 to 7
BUSY_SECONDS = 20.0  # as long as MLflow itself waits for a busy SQLite

JOB_KEY = "workflow.job_key"
ATTEMPT = "workflow.attempt"
SUPERSEDED = "workflow.superseded"
NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"

EXPERIMENT_NOTE = f"""One live entry for each method and seed: ``tags.`{SUPERSEDED}` = 'false'``. Entries that a later
attempt replaced stay, tagged `true`. Trials are nested under their search."""

Points = Mapping[tuple[str, int], Any]  # by metric and step


def tracking_uri(configured: str | None, root: Path) -> str:
    """The store to log to: the configured one, else $MLFLOW_TRACKING_URI, else `mlflow.db` under the project's root."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve() / 'mlflow.db'}"


class Store:
    """An open tracking store; every method may raise whatever MLflow raises."""

    def __init__(self, uri: str) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient  # takes a second, and must come after the settings

        self._database: Path | None = None
        if uri.startswith("sqlite:///"):
            self._database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  (takes another, which the others need not wait for)
        if "MLFLOW_LOGGING_LEVEL" not in os.environ:  # a job's log is for the job
            for name in ("mlflow", "alembic", "urllib3.connectionpool"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
        with self._alone():
            if self._database is not None:
                _prepare(self._database)
            self.client = MlflowClient(uri)

    def begin(self, experiment: str, name: str, key: str, tags: Mapping[str, str]) -> str:
        """Begin a run as the one live entry of its key.

        Earlier runs of the key are superseded, with their children; those still open belong to dead processes and are
        closed.

        Returns:
            The new run's id.
        """
        with self._alone():
            experiment_id = self._experiment(experiment)
            earlier = self._search(experiment, f"tags.`{JOB_KEY}` = '{key}'")
            for run in earlier:
                if run.data.tags.get(SUPERSEDED) != "true":
                    for child in self._search(experiment, f"tags.`{PARENT}` = '{run.info.run_id}'"):
                        self._supersede(child)
                    self._supersede(run)  # last, so that an interruption in between is made up for next time
            own = {JOB_KEY: key, ATTEMPT: str(len(earlier) + 1), SUPERSEDED: "false"}
            run = self.client.create_run(experiment_id, run_name=name, tags={**tags, **own})
            return str(run.info.run_id)

    def begin_child(self, experiment: str, name: str, parent: str, tags: Mapping[str, str]) -> str:
        """Begin a run nested under `parent`; returns its id."""
        own = {PARENT: parent, SUPERSEDED: "false"}
        run = self.client.create_run(self._experiment(experiment), run_name=name, tags={**tags, **own})
        return str(run.info.run_id)

    def has(self, experiment: str, key: str, tag: str, value: str) -> bool:
        """Whether the live entry of a key is finished and carries a tag."""
        live = f"tags.`{JOB_KEY}` = '{key}' and tags.`{SUPERSEDED}` = 'false' and attributes.status = 'FINISHED'"
        return bool(self._search(experiment, f"{live} and tags.`{tag}` = '{value}'"))

    def log(self, run_id: str, points: Points, params: Mapping[str, Any] | None = None) -> None:
        """Log metrics and parameters in MLflow's batches of a thousand; what is no number, or infinite, is left out."""
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, step)
            for (name, step), value in points.items()
            if isinstance(value, int | float) and not math.isinf(value)  # MLflow would turn inf into 1.8e308
        ]
        self.client.log_batch(run_id, metrics, [Param(name, str(value)) for name, value in (params or {}).items()])

    def log_dataset(self, run_id: str, name: str, digest: str, source: str, profile: str) -> None:
        """Log a dataset as a run's input, by its name and digest alone."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, digest, source_type="local", source=source, profile=profile)
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def end(self, run_id: str, status: str, tags: Mapping[str, str]) -> None:
        """Set the last tags and close a run."""
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        self.client.set_terminated(run_id, status)

    def close(self, experiment: str, key: str, tags: Mapping[str, str]) -> None:
        """Close as killed the runs of a key that are still open, each after its children."""
        running = "attributes.status = 'RUNNING'"
        for run in self._search(experiment, f"tags.`{JOB_KEY}` = '{key}' and {running}"):
            children = self._search(experiment, f"tags.`{PARENT}` = '{run.info.run_id}' and {running}")
            for each in (*children, run):
                self.end(each.info.run_id, "KILLED", tags)

    def _search(self, experiment: str, query: str) -> list[Any]:
        found = self.client.get_experiment_by_name(experiment)
        return [] if found is None else list(self.client.search_runs([found.experiment_id], query))

    def _supersede(self, run: Any) -> None:
        if run.info.status == "RUNNING":
            self.client.set_terminated(run.info.run_id, "KILLED")
        self.client.set_tag(run.info.run_id, SUPERSEDED, "true")

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # Beside the database, as MLflow itself would have it only if started there.
        place = self._database and (self._database.resolve().parent / "mlruns" / name).as_uri()
        try:
            return str(self.client.create_experiment(name, place, tags={NOTE: EXPERIMENT_NOTE}))
        except MlflowException:  # a server has no lock: another process may have been faster
            if (found := self.client.get_experiment_by_name(name)) is None:
                raise
            return str(found.experiment_id)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes of this project away from an SQLite store; a server sees to that itself."""
        if self._database is None:
            yield
            return
        self._database.parent.mkdir(parents=True, exist_ok=True)
        with self._database.with_name(self._database.name + ".lock").open("a") as file:
            _lock(file)
            yield


def _lock(file: IO[str]) -> None:
    """Lock a file until it is closed; a holder that hangs must not hang the others."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{file.name} has been locked for {LOCK_SECONDS:.0f} s") from None
            time.sleep(0.02)


def _prepare(database: Path) -> None:
    """Make the tables if there are none; fail at once where MLflow would try for minutes to open what is no database.

    The tables are made elsewhere and copied in one transaction: MLflow cannot go on where a killed process left off.
    """
    from mlflow import MlflowClient

    with closing(sqlite3.connect(database, timeout=BUSY_SECONDS, isolation_level=None)) as target:
        target.execute("BEGIN IMMEDIATE")
        target.execute("ROLLBACK")
        if target.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            return
        with TemporaryDirectory() as folder:
            MlflowClient(f"sqlite:///{folder}/new.db")
            with closing(sqlite3.connect(f"{folder}/new.db")) as source:
                source.backup(target)
