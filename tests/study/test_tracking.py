"""MLflow as a view of the runs, on real stores, read back through MLflow's own client."""

from __future__ import annotations

import getpass
import itertools
import json
import math
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import pytest
from alembic.runtime.migration import HeadMaintainer
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from test_results import result as made_up

from cpmlho.study import hints, tracking
from cpmlho.study import protocol as config
from cpmlho.study.events import Metrics
from cpmlho.study.files import locked, write_text
from cpmlho.study.made import seal
from cpmlho.study.protocol import Protocol, RunKey
from cpmlho.study.results import (
    HISTORY,
    HYPERPARAMETERS,
    METRICS,
    NETWORK,
    PLANES,
    RESULT,
    TRIALS,
    Row,
    RunResult,
    run_dir,
    write_run,
)
from cpmlho.study.tracking import entry, place

ROOT = Path(__file__).parents[2]
NAN = float("nan")
EPOCHS, UPDATES, TUNED = 7, 557, ("dropout0", "dropout1", "dropout2")
Tables = dict[str, list[Row]]

# Children with MLflow already imported: the import is what takes long.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["mlflow.store.tracking.sqlalchemy_store", "cpmlho.study.tracking"])


def evaluation(epoch: int, loss: float, test_loss: float) -> Row:
    judged = {"val_loss": loss, "val_acc": 0.9, "test_loss": test_loss, "test_acc": 0.8}
    return {"epoch": epoch, "step": 398 * epoch, "seconds": 1.5 * epoch, **judged, "train_loss": loss / 2}


GRADIENT: Tables = {
    HISTORY: [evaluation(epoch, 1 / epoch, 1.1 / epoch) for epoch in range(1, EPOCHS + 1)],
    HYPERPARAMETERS: [
        {"update": update, "step": 5 * update, "dropout0": update / 1000, "dropout1": 0.1, "dropout2": 0.2}
        for update in range(UPDATES)
    ],
    PLANES: [
        {"epoch": epoch, "step": 398 * epoch, "plane": plane, "g": 2.5 + plane, "phi": epoch + plane / 10}
        | {"mu": float(plane), "gradient_share": 0.25}
        for epoch in range(EPOCHS + 1)
        for plane in range(min(epoch + 1, 3))
    ],
}
SEARCH: Tables = {  # two trials of seven epochs, each evaluated at its end; the second diverges
    HISTORY: [evaluation(7, 0.5, 0.6), evaluation(14, NAN, math.inf)],
    TRIALS: [
        {"trial": 0, "dropout0": 0.5, "dropout1": 0.25, "dropout2": 0.75}
        | {"val_loss": 0.5, "val_acc": 0.9, "test_loss": 0.6, "test_acc": 0.8, "seconds": 12.5, "status": "done"},
        {"trial": 1, "dropout0": 0.9, "dropout1": 0.1, "dropout2": 0.2}
        | {"val_loss": NAN, "val_acc": 0.9, "test_loss": math.inf, "test_acc": 0.8, "seconds": 3.5}
        | {"status": "diverged"},
    ],
}
MADE = {"tables/table2.csv", "tables/SHA256SUMS", "figures/figure1.png", "figures/SHA256SUMS"}


def make_tables(folder: Path, text: str = "made") -> None:
    """A table and a figure, as their verbs write them."""
    for path in (folder / "tables" / "table2.csv", folder / "figures" / "figure1.png"):
        write_text(path, text)
        seal(path.parent, [path.name])


@cache
def protocol() -> Protocol:
    return config.load([ROOT / "config.yaml"])


def result(method: str = "cpmlho", seed: int = 0, **changes: Any) -> RunResult:
    """A result that agrees with `GRADIENT`, or with `SEARCH` if the method is a search."""
    spec = protocol().resolve(RunKey("mnist", method, seed))
    if spec.trials:
        spec = spec.model_copy(update={"settings": replace(spec.settings, trials=len(SEARCH[TRIALS]))})  # type: ignore[type-var]
    final = SEARCH[HISTORY][0] if spec.trials else GRADIENT[HISTORY][-1]
    metrics = Metrics(**{name: final[name] for name in METRICS})  # type: ignore[arg-type]
    values = {
        **{"spec": spec, "data_sha256": spec.data.sha256, "final": metrics, "best": metrics},
        "train_loss": None if spec.trials else 0.0625,
        "hyperparameters": {"dropout0": 0.557, "dropout1": 0.1, "dropout2": 0.2},
        "steps": (SEARCH if spec.trials else GRADIENT)[HISTORY][-1]["step"],
        "total_seconds": 100.0,
        "git_commit": "c0ffee-dirty",
        "started": "2026-01-02T03:04:05+00:00",
        "ended": "2026-01-02T03:05:45+00:00",
    }
    return made_up(**(values | changes))


def write(folder: Path, outcome: RunResult, tables: Tables | None = None) -> Path:
    """A finished run's files."""
    path = run_dir(folder, outcome.key)
    write_run(path, outcome, tables or (SEARCH if outcome.spec.trials else GRADIENT))
    return path


def refuse(line: str) -> None:
    raise SystemExit(line)


def log_live(
    uri: str, folder: Path, outcome: RunResult, last: Sequence[Any] = (), say: Callable[[str], None] = refuse
) -> None:
    """Log as a training process does: the rows of an interrupted attempt, then of each evaluation; files or `last`."""
    tables = SEARCH if outcome.spec.trials else GRADIENT
    messages: list[Sequence[Any]] = []
    ends = [int(row["step"]) for row in tables[HISTORY]]
    for number, (since, until) in enumerate(itertools.pairwise([-1, *ends])):
        new = {name: [row for row in rows if since < row.get("step", -1) <= until] for name, rows in tables.items()}
        if TRIALS in tables:
            new[TRIALS] = [tables[TRIALS][number]]
        messages.append(("evaluated", new) if messages else ("started", outcome.spec.model_dump(mode="json"), new))
    messages += [last] if last else [("finished", str(write(folder, outcome)))]
    tracking.follow(uri, folder, json.loads(json.dumps(messages)), say)


def runs(uri: str, group: str = "mnist", query: str = "", view: int = 1) -> list[Any]:
    """All entries of the experiments of a dataset, or of the summaries; `view` 3: also the deleted ones."""
    client = MlflowClient(uri)
    found = [each.experiment_id for each in client.search_experiments() if each.name.endswith(f"/{group}")]
    return list(client.search_runs(found, query, view, order_by=["attributes.run_name"])) if found else []


def live(uri: str, group: str = "mnist") -> list[Any]:
    return [run for run in runs(uri, group) if entry.PARENT not in run.data.tags]


def children(uri: str, run: Any) -> list[Any]:
    return runs(uri, "mnist", f"tags.`{entry.PARENT}` = '{run.info.run_id}'")


def histories(uri: str, run: Any) -> dict[str, list[tuple[int, float]]]:
    client = MlflowClient(uri)
    return {
        name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


def artifacts(uri: str, run: Any, folder: str = "") -> dict[str, bytes]:
    client, found = MlflowClient(uri), {}
    for item in client.list_artifacts(run.info.run_id, folder):
        if item.is_dir:
            found |= artifacts(uri, run, item.path)
        else:
            found[item.path] = Path(client.download_artifacts(run.info.run_id, item.path)).read_bytes()
    return found


def content(uri: str) -> dict[str, Any]:
    """Everything that the entries show, apart from identifiers and times."""

    def view(run: Any) -> dict[str, Any]:
        return {
            "status": run.info.status,
            "params": run.data.params,
            "tags": {name: value for name, value in run.data.tags.items() if name != entry.PARENT},
            "metrics": {name: sorted(map(repr, points)) for name, points in histories(uri, run).items()},
            "artifacts": artifacts(uri, run),
            "inputs": [(item.dataset.name, item.dataset.digest) for item in run.inputs.dataset_inputs],
            "children": [(child.info.run_name, view(child)) for child in children(uri, run)],
        }

    return {run.data.tags[entry.JOB_KEY]: view(run) for run in live(uri)}


def other_protocol(folder: Path) -> Protocol:
    run = {"datasets": ["mnist"], "methods": ["random_search", "cpmlho"], "variants": [], "seeds": [0, 1]}
    return config.load([ROOT / "config.yaml"], {"results_dir": str(folder), "run": run})


def track(folder: Path) -> tuple[bool, list[str]]:
    lines: list[str] = []
    return tracking.track(other_protocol(folder), folder, lines.append), lines


def test_the_configured_store_comes_before_the_environments_before_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert tracking.tracking_uri(None, Path()) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere\n")  # the secret of a CI often ends so
    assert tracking.tracking_uri(None, tmp_path) == "http://elsewhere"
    assert tracking.tracking_uri("http://here", tmp_path) == "http://here"


def test_a_run_is_logged_with_everything(uri: str, tmp_path: Path) -> None:
    log_live(uri, tmp_path / "results", result())
    assert {found.name for found in MlflowClient(uri).search_experiments()} == {"Default", "cpmlho/results/mnist"}
    (run,) = runs(uri)
    assert (run.info.run_name, run.info.status) == ("cpmlho seed0", "FINISHED")

    tags, spec = run.data.tags, result().spec
    assert (tags["method"], tags["dataset"], tags["seed"], tags["base"]) == ("cpmlho", "mnist", "0", "cpmlho")
    assert (tags["workflow.job_key"], tags["status"], tags["change"]) == ("mnist/cpmlho/seed0", "done", "none")
    assert (tags["mlflow.source.git.commit"], tags["git.dirty"], tags["precision"]) == ("c0ffee", "true", "float32")
    assert (tags["mlflow.user"], tags["mlflow.source.name"]) == (
        getpass.getuser(),
        "python -m cpmlho run mnist cpmlho 0",
    )
    assert {name for name in tags if "sha256" in name} == {
        "files_sha256",
        *(f"data.sha256.{name}" for name in spec.data.sha256),
    }
    params = run.data.params
    assert params["settings.dual_step"] == str(spec.settings.dual_step)  # type: ignore[attr-defined]
    assert params["data.hyperparameters.dropout0.start"] == "0.05"
    assert not [name for name in params if "sha256" in name]

    found = histories(uri, run)
    for name in (*METRICS, "train_loss", "seconds"):
        assert found[name] == [(row["step"], row[name]) for row in GRADIENT[HISTORY]], name
    for name in TUNED:
        expected = [(row["step"], row[name]) for row in GRADIENT[HYPERPARAMETERS]]
        assert found[f"hyperparameter/{name}"] == expected, name
    newest = {epoch: min(epoch, 2) for epoch in range(EPOCHS + 1)}
    assert found["planes/g"] == [(398 * epoch, 2.5 + plane) for epoch, plane in newest.items()]
    assert found["planes/newest_phi"] == [(398 * epoch, epoch + plane / 10) for epoch, plane in newest.items()]
    assert found["planes/oldest_phi"] == [(398 * epoch, epoch) for epoch in newest]
    assert found["planes/oldest_mu"] == [(398 * epoch, 0) for epoch in newest]
    assert next(iter(run.data.metrics)) == "val_loss", "the validation loss comes first"
    assert (found["final_val_loss"], found["best_val_loss"]) == ([(0, 1 / 7)], [(0, 1 / 7)])
    assert (found["final_train_loss"], found["peak_memory_mb"]) == ([(0, 0.0625)], [(0, 3.0)])

    folder = run_dir(tmp_path / "results", result().key)
    assert artifacts(uri, run) == {path.name: path.read_bytes() for path in folder.iterdir()}
    (item,) = run.inputs.dataset_inputs
    assert item.dataset.name == "mnist"
    assert json.loads(item.dataset.profile) == spec.data.sha256


def test_a_dataset_that_another_run_logs_in_the_same_moment_is_no_failure(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_inputs, calls = MlflowClient.log_inputs, itertools.count()

    def faster(*arguments: Any) -> None:
        if next(calls) == 0:
            raise MlflowException("UNIQUE constraint failed: datasets.experiment_id, datasets.name, datasets.digest")
        log_inputs(*arguments)

    monkeypatch.setattr(MlflowClient, "log_inputs", faster)
    log_live(uri, tmp_path, result())
    assert [len(run.inputs.dataset_inputs) for run in live(uri)] == [1]


def test_trials_are_nested_runs(uri: str, tmp_path: Path) -> None:
    log_live(uri, tmp_path, result("random_search"))
    (parent,) = live(uri)
    first, second = children(uri, parent)
    assert (first.info.run_name, second.info.run_name) == ("trial0", "trial1")
    assert (first.info.status, second.info.status) == ("FINISHED", "FINISHED")
    assert (first.data.tags["status"], second.data.tags["status"]) == ("done", "diverged")
    assert first.data.params == {"dropout0": "0.5", "dropout1": "0.25", "dropout2": "0.75"}
    outcome = {"val_loss": 0.5, "val_acc": 0.9, "test_loss": 0.6, "test_acc": 0.8, "seconds": 12.5}
    assert histories(uri, first) == {name: [(2786, value)] for name, value in outcome.items()}
    assert math.isnan(second.data.metrics["val_loss"])
    assert histories(uri, second)["seconds"] == [(2786, 3.5)], "the steps of a trial count from its start"
    assert "test_loss" not in second.data.metrics, "an infinite value was logged"


def test_a_diverged_run_is_finished_and_keeps_its_nan(uri: str, tmp_path: Path) -> None:
    bad = Metrics(val_loss=NAN, val_acc=0.9, test_loss=-math.inf, test_acc=0.8)
    rows = [{**row, "val_loss": NAN, "test_loss": -math.inf} for row in GRADIENT[HISTORY]]
    folder = write(tmp_path, result(status="diverged", final=bad, best=bad), {HISTORY: rows})
    tracking.follow(
        uri,
        tmp_path,
        [("started", result().spec.model_dump(mode="json"), {HISTORY: rows}), ("finished", str(folder))],
        refuse,
    )
    (run,) = live(uri)
    found = histories(uri, run)
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "diverged")
    assert [step for step, value in found["val_loss"] if math.isnan(value)] == [row["step"] for row in rows]
    assert math.isnan(run.data.metrics["final_val_loss"])
    assert not {"test_loss", "final_test_loss"} & found.keys()


def test_the_newest_finished_attempt_stays_and_a_failed_one_says_why(uri: str, tmp_path: Path) -> None:
    log_live(uri, tmp_path, result(), ("failed", "out of memory"))
    (run,) = live(uri)
    assert (run.info.status, run.data.tags["reason"]) == ("FAILED", "out of memory")
    log_live(uri, tmp_path, result())
    (done,) = live(uri)
    assert (done.info.status, len(runs(uri, view=3))) == ("FINISHED", 2)
    log_live(uri, tmp_path, result(), ("failed", "out of memory"))
    assert [each.info.run_id for each in live(uri)] == [done.info.run_id]
    log_live(uri, tmp_path, result())
    (newest,) = live(uri)
    assert newest.info.run_id != done.info.run_id


def job(uri: str, folder: Path, seed: int, together: Barrier) -> None:
    together.wait(60)
    log_live(uri, folder, result(seed=seed))


@pytest.mark.slow
def test_four_processes_at_once_on_no_database_lose_nothing(tmp_path: Path) -> None:
    uri, together = f"sqlite:///{tmp_path}/mlflow.db", PROCESSES.Barrier(4)
    jobs = [PROCESSES.Process(target=job, args=(uri, tmp_path / "results", seed, together)) for seed in range(4)]
    for process in jobs:
        process.start()
    for process in jobs:
        process.join(240)
    assert [process.exitcode for process in jobs] == [0] * 4
    found = live(uri)
    assert [run.info.run_name for run in found] == [f"cpmlho seed{seed}" for seed in range(4)]
    assert {run.info.status for run in found} == {"FINISHED"}
    for run in found:
        points = histories(uri, run)
        for name in TUNED:
            expected = [(row["step"], row[name]) for row in GRADIENT[HYPERPARAMETERS]]
            assert points[f"hyperparameter/{name}"] == expected


def dies_making_the_tables(uri: str, folder: Path) -> None:
    steps, made = itertools.count(), HeadMaintainer.update_to_step

    def step(self: HeadMaintainer, *args: Any) -> None:
        if next(steps) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        made(self, *args)

    HeadMaintainer.update_to_step = step  # type: ignore[method-assign]
    entry.Store(uri, folder)


@pytest.mark.slow
def test_a_process_killed_while_making_the_tables_leaves_a_store_that_works(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    process = PROCESSES.Process(target=dies_making_the_tables, args=(uri, tmp_path))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    log_live(uri, tmp_path, result())
    assert len(live(uri)) == 1


def half_a_search(uri: str, folder: Path) -> Any:
    """A search that is killed in the middle of logging a trial: its entry, still open."""
    search = entry.RunEntry(entry.Store(uri, folder), result("random_search").spec, entry.now)
    search.add({name: rows[:1] for name, rows in SEARCH.items()})
    search._create("trial1", {entry.PARENT: search._id}, 0)
    (dead,) = live(uri)
    assert dead.info.status == "RUNNING"
    return dead


def test_a_killed_run_is_closed_by_the_next_attempt(uri: str, tmp_path: Path) -> None:
    dead = half_a_search(uri, tmp_path)
    log_live(uri, tmp_path, result("random_search"))
    (run,) = live(uri)
    assert (run.info.status, len(children(uri, run))) == ("FINISHED", 2)
    every = runs(uri, view=3)
    assert {each.info.status for each in every} == {"FINISHED", "KILLED"}
    assert {each.info.run_id for each in every if each.info.lifecycle_stage == "deleted"} >= {dead.info.run_id}
    assert len(runs(uri)) == 3, "a trial of the dead run is left"


def test_track_closes_what_is_open_without_a_process(uri: str, tmp_path: Path) -> None:
    half_a_search(uri, tmp_path)
    with locked(run_dir(tmp_path, result("random_search").key), pytest.fail):
        track(tmp_path)
    assert live(uri)[0].info.status == "RUNNING"
    track(tmp_path)
    assert sorted(each.info.status for each in runs(uri)) == ["FINISHED", "KILLED", "KILLED"]


def rebuild(folder: Path) -> None:
    assert track(folder)[0]


@pytest.mark.slow
def test_rebuilding_gives_what_live_logging_gave_and_twice_the_same(uri: str, tmp_path: Path) -> None:
    network = run_dir(tmp_path, result().key) / NETWORK
    network.parent.mkdir(parents=True)
    network.write_bytes(b"\x80no text")
    for outcome in (result(), result("random_search", 1)):
        log_live(uri, tmp_path, outcome)
    before, entries = content(uri), {run.info.run_id for run in runs(uri)}
    assert before["mnist/cpmlho/seed0"]["artifacts"][NETWORK] == network.read_bytes()
    assert before.keys() == {"mnist/cpmlho/seed0", "mnist/random_search/seed1"}
    rebuild(tmp_path)
    assert {run.info.run_id for run in runs(uri)} == entries, "what was logged live was logged again"

    for path in (*tmp_path.glob("mlflow.db*"), tmp_path / "mlruns"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    SqlAlchemyStore._engine_map.pop(uri).dispose()
    process = PROCESSES.Process(target=rebuild, args=(tmp_path,))  # this one has connections to the deleted database
    process.start()
    process.join(120)
    assert content(uri) == before
    entries = {run.info.run_id for run in runs(uri)}
    rebuild(tmp_path)
    assert {run.info.run_id for run in runs(uri)} == entries


@pytest.mark.slow
def test_an_entry_that_lacks_something_is_written_again(uri: str, tmp_path: Path) -> None:
    log_live(uri, tmp_path, result("random_search"))
    (run,) = live(uri)
    assert track(tmp_path)[0]
    assert live(uri)[0].info.run_id == run.info.run_id
    for lost in ("artifact", "trial", "files", "end"):
        if lost == "artifact":
            next((tmp_path / "mlruns").rglob(TRIALS)).unlink()
        elif lost == "trial":
            MlflowClient(uri).delete_run(children(uri, run)[0].info.run_id)
        elif lost == "files":  # they were edited after the run
            rows = [{**row, "seconds": 1.5} for row in SEARCH[TRIALS]]
            write(tmp_path, result("random_search"), {**SEARCH, TRIALS: rows})
        else:
            MlflowClient(uri).update_run(run.info.run_id, "RUNNING")
        assert track(tmp_path)[0]
        (again,) = live(uri)
        assert (again.info.run_id != run.info.run_id, again.info.status) == (True, "FINISHED"), lost
        assert len(children(uri, again)) == 2, lost
        run = again


def test_a_rebuilt_run_has_the_times_at_which_it_was_made(uri: str, tmp_path: Path) -> None:
    folder = write(tmp_path, result("random_search"))
    assert track(tmp_path)[0]
    (run,) = live(uri)
    began, ended = 1_767_323_045_000, 1_767_323_145_000
    assert (run.info.start_time, run.info.end_time) == (began, ended)
    first, second = children(uri, run)
    assert (first.info.start_time, first.info.end_time) == (began, began + 50_000)
    assert (second.info.start_time, second.info.end_time) == (began + 50_000, ended)
    write(tmp_path, result("random_search", started=None, ended=None))
    os.utime(folder / RESULT, (0, 0))  # as an archive may leave it
    assert track(tmp_path)[0]
    assert live(uri)[0].info.status == "FINISHED"


def test_there_is_one_summary_also_on_a_server_of_mlflow_2(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_found(*_: object, **__: object) -> None:
        raise MlflowException("API request to endpoint /api/2.0/mlflow/logged-models/search failed: 404")

    for text, entries in (("made", 1), ("made again", 2), ("made again", 2)):
        make_tables(tmp_path, text)
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "search_logged_models", not_found)
            assert tracking.log_summary(other_protocol(tmp_path), tmp_path, pytest.fail)
        (run,) = live(uri, "summary")
        assert (run.info.run_name, run.info.status) == ("summary", "FINISHED")
        assert artifacts(uri, run) == {name: (tmp_path / name).read_bytes() for name in MADE}
        assert len(runs(uri, "summary", view=3)) == entries, "what was there was logged again"


@pytest.mark.slow
def test_a_tracker_process_logs_what_follow_logs(uri: str, tmp_path: Path) -> None:
    process = tracking.TrackerProcess(uri, tmp_path, pytest.fail)
    process.started(result().spec, {})
    process.evaluated(GRADIENT, None)
    process.finished(result(), write(tmp_path, result()))
    before = content(uri)
    log_live(uri, tmp_path, result())
    assert content(uri) == before


def starts_and_waits(uri: str, folder: Path, reached: Event) -> None:
    tracking.TrackerProcess(uri, folder, refuse).started(result().spec, GRADIENT)
    reached.set()
    time.sleep(600)


@pytest.mark.slow
def test_a_killed_run_does_not_stay_open(uri: str, tmp_path: Path) -> None:
    reached = PROCESSES.Event()
    process = PROCESSES.Process(target=starts_and_waits, args=(uri, tmp_path, reached))
    process.start()
    assert reached.wait(60)
    process.kill()
    process.join()
    deadline = time.monotonic() + 120
    while not (found := live(uri)) or found[0].info.status == "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (found[0].info.status, found[0].data.tags["status"]) == ("KILLED", "killed")
    assert len(histories(uri, found[0])["val_loss"]) == EPOCHS, "rows of an interrupted attempt are not there"


def test_a_run_does_not_wait_for_a_store_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "INTERRUPTION_SECONDS", 0.5)
    monkeypatch.setattr(hints, "_CONFIGS", ["my own.yaml"])
    lines: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        uri = f"http://user:s3cret@127.0.0.1:{silent.getsockname()[1]}"
        process = tracking.TrackerProcess(uri, tmp_path, lines.append)
        assert b"s3cret" not in Path(f"/proc/{process._process.pid}/cmdline").read_bytes()
        process.started(result().spec, {})
        for _ in range(200):  # more than a pipe holds
            process.evaluated(GRADIENT, None)
        process.failed("interrupted")
    (line,) = lines
    assert line.startswith("MLflow takes too long, the run ends without it; log what is missing: ")
    assert line.endswith(" -m cpmlho track --config 'my own.yaml'"), "the command logs other runs"
    process._process.kill()


@pytest.mark.parametrize(
    ("method", "base", "name"),
    [
        ("rate_twice_delta_stn", "delta_stn", "delta_stn seed3 rate_twice"),
        ("cpmlho_uncentred_cuts_only", "cpmlho_uncentred", "cpmlho_uncentred seed3 cuts_only"),
        ("split_random_cpmlho", "cpmlho", "cpmlho seed3 split_random"),
        ("bayesian_optimization", None, "bayesian_optimization seed3"),
    ],
)
def test_names_begin_with_method_and_seed(method: str, base: str | None, name: str) -> None:
    variants = {method: {"base": base, "settings": {"warm_up": 3}}} if base else {}
    spec = config.load([ROOT / "config.yaml"], {"variants": variants}).resolve(RunKey("mnist", method, 3))
    assert entry.title(spec) == name
    assert entry.labels(spec)["change"] == ("settings.warm_up 3" if base else "none")


def test_the_link_opens_the_runs_of_this_results_folder(uri: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        log_live(uri, tmp_path / name, result())
        number = MlflowClient(uri).get_experiment_by_name(f"cpmlho/{name}/mnist").experiment_id
        link = entry.Store(uri, tmp_path / name).link("http://page", ["fashionmnist", "mnist"])
        assert link.startswith(f"http://page/#/experiments/{number}/runs?")
    assert entry.Store(uri, tmp_path / "c").link("http://page", ["mnist"]).startswith("http://page/#/experiments?")


def test_commands_are_named_as_one_types_them() -> None:
    assert subprocess.run([place.command("python"), "--version"], check=False).returncode == 0
