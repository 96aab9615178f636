"""What the project asks of MLflow, and the only module that imports its client: runs that replace earlier ones.

Of all entries of a key one is live: the newest finished one, else the newest. An attempt that is under way is live too.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cpmlho.study.tracking.place import TRACKING_URI, command, database, page, shown
from cpmlho.study.tracking.sqlite import alone, artifacts, prepare, relocate

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
ENVIRONMENT = {  # read by MLflow's client; what the user has set stays
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",  # waits of 0, 2, 4, 8, ... seconds
}
IMPATIENT = "3"  # tries again of a server that was never there, 6 seconds
PATIENT = "6"  # of one that was there, and may be restarting: a minute
RETRIES_ARE_OURS = RETRIES not in os.environ

PREFIX = "cpmlho/"
JOB_KEY = "workflow.job_key"
ATTEMPT = "workflow.attempt"
SUPERSEDED = "workflow.superseded"
NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
LIVE = f"tags.`{SUPERSEDED}` = 'false'"

EXPERIMENT_NOTE = f"""One live entry for each method and seed: ``{LIVE}``. Entries that a later
attempt replaced stay, tagged `true`. Trials are nested under their search."""

Points = Mapping[tuple[str, int], Any]  # by metric and step


class StoreError(Exception):
    """A store that cannot be used as it is; the message names the remedy."""


class Store:
    """An open tracking store; every method may raise whatever MLflow raises.

    Raises:
        StoreError: an experiment was deleted.
    """

    def __init__(self, uri: str) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            Path.home()
        except RuntimeError:  # MLflow asks for it too, and a container's user without a name has none
            os.environ["HOME"] = tempfile.gettempdir()
        from mlflow import MlflowClient  # takes a second, and must come after the settings

        self.uri = uri
        self._database = database(uri)
        if self._database is not None:
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  (takes another, which the others need not wait for)
        if "MLFLOW_LOGGING_LEVEL" not in os.environ:  # a job's log is for the job
            for name in ("mlflow", "alembic", "urllib3.connectionpool"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
        self._retry(IMPATIENT)
        with alone(self._database):
            if self._database is not None:
                prepare(self._database)
            self.client = MlflowClient(uri)
            self.client.search_experiments(max_results=1)
            if self._database is not None:
                relocate(self._database, PREFIX)
        self._retry(PATIENT)

    def begin(self, experiment: str, name: str, key: str, tags: Mapping[str, str], started: int) -> str:
        """Begin a run of a key, `started` at so many milliseconds since the epoch.

        Earlier runs of the key that are open belong to dead processes and are closed. A finished one stays live until
        this one is finished too.

        Returns:
            The new run's id.
        """
        with alone(self._database):
            number = self._experiment(experiment)
            earlier = self._search(experiment, f"tags.`{JOB_KEY}` = '{key}'")
            for run in earlier:
                if run.data.tags.get(SUPERSEDED) != "true" and run.info.status != "FINISHED":
                    self._supersede(experiment, run)
            own = {JOB_KEY: key, ATTEMPT: str(len(earlier) + 1), SUPERSEDED: "false"}
            run = self.client.create_run(number, start_time=started, run_name=name, tags={**tags, **own})
            return str(run.info.run_id)

    def log_child(
        self,
        experiment: str,
        name: str,
        parent: str,
        tags: Mapping[str, str],
        content: tuple[Points, Mapping[str, Any]],
        times: tuple[int, int],
    ) -> None:
        """Log a whole run nested under `parent`: its metrics and parameters, start and end."""
        own = {**tags, PARENT: parent, SUPERSEDED: "false"}
        number = self._experiment(experiment)
        run = self.client.create_run(number, start_time=times[0], run_name=name, tags=own)
        points, params = content
        self.log(run.info.run_id, points, lambda _: times[1], params)
        self.client.set_terminated(run.info.run_id, "FINISHED", times[1])

    def log(
        self, run_id: str, points: Points, at: Callable[[int], int], params: Mapping[str, Any] | None = None
    ) -> None:
        """Log metrics and parameters in MLflow's batches of a thousand; what is no number, or infinite, is left out."""
        from mlflow.entities import Metric, Param

        metrics = [
            Metric(name, value, at(step), step)
            for (name, step), value in points.items()
            if isinstance(value, int | float) and not math.isinf(value)  # MLflow would turn inf into 1.8e308
        ]
        pairs = [Param(name, str(value)) for name, value in (params or {}).items()]
        self.client.log_batch(run_id, metrics, pairs, synchronous=True)

    def log_dataset(self, run_id: str, name: str, digest: str, source: str, profile: str) -> None:
        """Log a dataset as a run's input, by its name and digest alone."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, digest, source_type="local", source=source, profile=profile)
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def end(self, experiment: str, key: str, run_id: str, status: str, tags: Mapping[str, str], ended: int) -> None:
        """Set the last tags, close a run, and leave one live entry of its key."""
        from mlflow.entities import RunTag

        for child in self._search(experiment, f"tags.`{PARENT}` = '{run_id}' and attributes.status = 'RUNNING'"):
            self.client.set_terminated(child.info.run_id, "KILLED")
        self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()], synchronous=True)
        self.client.set_terminated(run_id, status, ended)
        closed = [run for run in self._live(experiment, key) if run.info.status != "RUNNING"]
        closed.sort(key=lambda run: (run.info.status == "FINISHED", _attempt(run)))
        for run in closed[:-1]:
            self._supersede(experiment, run)

    def close(self, experiment: str, key: str, tags: Mapping[str, str]) -> None:
        """Close as killed the runs of a key that are still open."""
        for run in self._live(experiment, key):
            if run.info.status == "RUNNING":
                self.end(experiment, key, run.info.run_id, "KILLED", tags, int(time.time() * 1000))

    def has(self, experiment: str, key: str, tag: tuple[str, str], files: Mapping[str, int], children: int) -> bool:
        """Whether a key has one finished live entry, and this carries a tag, its artifacts (by size) and children."""
        found = [run for run in self._live(experiment, key) if run.info.status == "FINISHED"]
        if len(found) != 1 or found[0].data.tags.get(tag[0]) != tag[1]:
            return False
        run_id = found[0].info.run_id
        if self._artifacts(run_id) != files:
            return False
        finished = f"tags.`{PARENT}` = '{run_id}' and attributes.status = 'FINISHED'"
        return children == 0 or len(self._search(experiment, finished)) == children

    def link(self) -> str:
        """The address that opens MLflow's page at the runs: of one dataset, or of all beside each other."""
        experiments = self.client.search_experiments(filter_string=f"name LIKE '{PREFIX}%'", order_by=["name DESC"])
        found = {each.name.removeprefix(PREFIX): each.experiment_id for each in experiments}
        number = next((number for name, number in found.items() if name != "summary"), None)
        where = "experiments" if number is None else f"experiments/{number}/runs"
        return f"{page(self.uri)}/#/{where}?workflowType=machine_learning"

    def hurry(self) -> None:
        """Wait no more for a server that has gone."""
        self._retry("0")

    def _artifacts(self, run_id: str, folder: str = "") -> dict[str, int]:
        found: dict[str, int] = {}
        for item in self.client.list_artifacts(run_id, folder):
            found |= self._artifacts(run_id, item.path) if item.is_dir else {item.path: item.file_size}
        return found

    def _live(self, experiment: str, key: str) -> list[Any]:
        return self._search(experiment, f"tags.`{JOB_KEY}` = '{key}' and {LIVE}")

    def _search(self, experiment: str, query: str) -> list[Any]:
        found = self.client.get_experiment_by_name(PREFIX + experiment)
        return [] if found is None else list(self.client.search_runs([found.experiment_id], query))

    def _supersede(self, experiment: str, run: Any) -> None:
        children = self._search(experiment, f"tags.`{PARENT}` = '{run.info.run_id}'")
        for each in (*children, run):  # the run last, so that an interruption in between is made up for next time
            if each.info.status == "RUNNING":
                self.client.set_terminated(each.info.run_id, "KILLED")
            self.client.set_tag(each.info.run_id, SUPERSEDED, "true", synchronous=True)

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        whole = PREFIX + name
        if (found := self.client.get_experiment_by_name(whole)) is None:
            place = self._database and artifacts(self._database, whole)
            try:
                return str(self.client.create_experiment(whole, place, tags={NOTE: EXPERIMENT_NOTE}))
            except MlflowException:  # a server has no lock: another process may have been faster
                if (found := self.client.get_experiment_by_name(whole)) is None:
                    raise
        if found.lifecycle_stage != "active":
            restore = f"{command('mlflow')} experiments restore --experiment-id {found.experiment_id}"
            raise StoreError(
                f"the experiment {whole} was deleted in MLflow's page; bring it back with"
                f" `{TRACKING_URI}={shown(self.uri)} {restore}`, then run `python -m cpmlho track`"
            )
        return str(found.experiment_id)

    @staticmethod
    def _retry(times: str) -> None:
        if RETRIES_ARE_OURS:
            os.environ[RETRIES] = times


def _attempt(run: Any) -> int:
    """The number of an attempt; 0 where it was taken away or edited in MLflow's page."""
    text = str(run.data.tags.get(ATTEMPT))
    return int(text) if text.isdecimal() else 0
