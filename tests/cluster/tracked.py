"""Whether a tracking server has every metric that the files of the runs have."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from mlflow import MlflowClient

from cpmlho.study.protocol import RunKey
from cpmlho.study.results import HISTORY, HYPERPARAMETERS, METRICS, RESULT, read_result, read_rows, run_dir
from cpmlho.study.tracking import Tracker, TrackerProcess, log_run

ROWS = 8  # that a writer sends at a time
Point = tuple[str, int, float]  # a metric's name, step and value


def written(folder: Path) -> set[Point]:
    """The metrics in a run's files, as its entry is to name them."""
    rows = {name: read_rows(folder / name) for name in (HISTORY, HYPERPARAMETERS) if (folder / name).exists()}
    judged = {(name, row["step"], float(row[name])) for row in rows.get(HISTORY, ()) for name in METRICS}
    return judged | {
        (f"hyperparameter/{name}", row["step"], float(value))
        for row in rows.get(HYPERPARAMETERS, ())
        for name, value in row.items()
        if name not in ("update", "step")
    }


def begun(uri: str) -> int:
    """How many entries of runs the server has, whatever their state."""
    client = MlflowClient(uri)
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    return len(client.search_runs(everywhere, "tags.`workflow.job_key` LIKE '%seed%'"))


def found(client: MlflowClient, key: RunKey) -> set[Point]:
    """The metrics of a run's one live entry; none if it is not there, or not closed as finished."""
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    query = f"tags.`workflow.job_key` = '{key}' and tags.`workflow.superseded` = 'false'"
    runs = client.search_runs(everywhere, query)
    if len(runs) != 1 or runs[0].info.status != "FINISHED":
        return set()
    run_id, names = runs[0].info.run_id, runs[0].data.metrics
    return {(name, m.step, m.value) for name in names for m in client.get_metric_history(run_id, name)}


def lost(uri: str, results: Path) -> tuple[int, int]:
    """How many metrics the runs under `results` have in their files, and how many of these the server lacks."""
    client = MlflowClient(uri)
    keys = [read_result(path).key for path in sorted(results.glob(f"runs/*/*/*/{RESULT}"))]
    pairs = [(written(run_dir(results, key)), found(client, key)) for key in keys]
    return sum(len(there) for there, _ in pairs), sum(len(there - here) for there, here in pairs)


def repair(uri: str, results: Path) -> None:
    """Log what is missing, as `python -m cpmlho track` does."""
    tracker = Tracker(uri, print)
    for path in sorted(results.glob(f"runs/*/*/*/{RESULT}")):
        log_run(tracker, path.parent)


def write(uri: str, folder: Path, pause: float) -> None:
    """Log a finished run as if it were training, some rows every `pause` seconds."""
    result = read_result(folder / RESULT)
    tracker = TrackerProcess(uri, lambda line: print(line, file=sys.stderr, flush=True))
    tables = {path.name: read_rows(path) for path in folder.glob("*.csv")}
    tracker.started(result.spec, {})
    for start in range(0, max(map(len, tables.values())), ROWS):
        tracker.evaluated({name: rows[start : start + ROWS] for name, rows in tables.items()}, None)
        time.sleep(pause)
    tracker.finished(result, folder)


def main() -> None:
    """Log the runs under a results folder to a server, all at once."""
    uri, results, pause = sys.argv[1:]
    folders = [path.parent for path in Path(results).glob(f"runs/*/*/*/{RESULT}")]
    writers = [threading.Thread(target=write, args=(uri, folder, float(pause))) for folder in folders]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()


if __name__ == "__main__":
    main()
