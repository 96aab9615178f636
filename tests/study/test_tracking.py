"""MLflow as a view of the runs, on real stores, read back through MLflow's own client."""

from __future__ import annotations

import csv
import getpass
import itertools
import json
import math
import multiprocessing
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import pytest
from alembic.runtime.migration import HeadMaintainer
from mlflow import MlflowClient
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from cpmlho.study import protocol as config
from cpmlho.study import tracking
from cpmlho.study.events import Metrics
from cpmlho.study.files import locked, seal, write_text
from cpmlho.study.protocol import Protocol, RunKey
from cpmlho.study.results import (
    HISTORY,
    HYPERPARAMETERS,
    NETWORK,
    PLANES,
    RESULT,
    TRIALS,
    Row,
    RunResult,
    run_dir,
    write_run,
)
from cpmlho.study.tracking import Tracker, sqlite, store
from cpmlho.study.tracking import process as process_module

ROOT = Path(__file__).parents[2]
NAN = float("nan")
EPOCHS, UPDATES, PLANES_AT_END = 7, 557, 3
POINTS = EPOCHS * 4 + UPDATES * 3 + EPOCHS * 5  # rows of `GRADIENT` in MLflow
FINAL = 4 + 1 + 5  # values of `result` in MLflow
Tables = dict[str, list[Row]]

# Children with MLflow already imported: the import is what takes long.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["mlflow.store.tracking.sqlalchemy_store", "cpmlho.study.tracking"])

LAST = Metrics(val_loss=0.25, val_acc=0.9, test_loss=0.5, test_acc=0.8)
BEST = Metrics(val_loss=0.125, val_acc=0.95, test_loss=0.375, test_acc=0.85)
GRADIENT: Tables = {
    HISTORY: [
        {
            "epoch": epoch,
            "step": 398 * epoch,
            "seconds": 1.5 * epoch,
            **asdict(metrics),
        }
        for epoch, metrics in enumerate([*[Metrics(0.75, 0.7, 0.875, 0.6)] * (EPOCHS - 2), BEST, LAST], 1)
    ],
    HYPERPARAMETERS: [
        {"update": update, "step": 5 * update, "dropout0": update / 1000, "dropout1": 0.1, "dropout2": 0.2}
        for update in range(1, UPDATES + 1)
    ],
    PLANES: [
        {"epoch": epoch, "step": 398 * epoch, "plane": plane, "g": 2.5, "phi": epoch + plane / 10, "mu": plane}
        | {"gradient_share": 0.25}
        for epoch in range(1, EPOCHS + 1)
        for plane in range(min(epoch, PLANES_AT_END))
    ],
}
SEARCH: Tables = {
    HISTORY: GRADIENT[HISTORY],
    TRIALS: [
        {"trial": 0, "dropout0": 0.5, "dropout1": 0.25, "dropout2": 0.75}
        | {"val_loss": 0.5, "val_acc": 0.85, "test_loss": 0.6, "test_acc": 0.8, "seconds": 12.5, "status": "done"},
        {"trial": 1, "dropout0": 0.9, "dropout1": 0.1, "dropout2": 0.2}
        | {
            "val_loss": NAN,
            "val_acc": 0.1,
            "test_loss": math.inf,
            "test_acc": 0.1,
            "seconds": 3.5,
            "status": "diverged",
        },
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
    spec = protocol().resolve(RunKey("mnist", method, seed))
    if spec.trials:
        spec = spec.model_copy(update={"settings": replace(spec.settings, trials=len(SEARCH[TRIALS]))})  # type: ignore[type-var]
    values = {
        "spec": spec,
        "status": "done",
        "final": BEST if spec.trials else LAST,
        "best": BEST,
        "hyperparameters": {"dropout0": 0.557, "dropout1": 0.1, "dropout2": 0.2},
        "steps": 398 * EPOCHS,
        "train_seconds": 10.5,
        "train_cpu_seconds": 9.5,
        "evaluation_seconds": 0.5,
        "total_seconds": 12.5,
        "peak_memory_mb": 512.0,
        "device": "cpu",
        "precision": "float32",
        "versions": {"torch": "2"},
        "git_commit": "c0ffee-dirty",
        "numerics": 2,
        "data_sha256": spec.data.sha256,
    }
    return RunResult(**(values | changes))


def log_live(uri: str, results_dir: Path, outcome: RunResult, tables: Tables, log: Callable[[str], None]) -> None:
    """What a job does: rows epoch by epoch, then the files, then the end."""
    tracker = Tracker(uri, log)
    tracker.started(outcome.spec, {})
    for epoch in range(1, EPOCHS + 1):
        since, until = 398 * (epoch - 1), 398 * epoch
        tracker.evaluated(
            {name: [row for row in rows if since < row.get("step", 1) <= until] for name, rows in tables.items()}
        )
    folder = run_dir(results_dir, outcome.key)
    write_run(folder, outcome, tables)
    tracker.finished(outcome, folder)


def runs(uri: str, experiment: str = "mnist", query: str = "") -> list[Any]:
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(store.PREFIX + experiment)
    assert found is not None, f"no experiment {experiment}"
    return list(client.search_runs([found.experiment_id], query, order_by=["attributes.run_name"]))


def live(uri: str, experiment: str = "mnist") -> list[Any]:
    found = runs(uri, experiment, "tags.`workflow.superseded` = 'false'")
    return [run for run in found if "mlflow.parentRunId" not in run.data.tags]


def children(uri: str, run: Any) -> list[Any]:
    return runs(uri, "mnist", f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")


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
    """Everything that the live entries show, apart from identifiers, times and the attempt."""

    def view(run: Any) -> dict[str, Any]:
        ignored = ("workflow.attempt", "mlflow.parentRunId")
        return {
            "status": run.info.status,
            "params": run.data.params,
            "tags": {name: value for name, value in run.data.tags.items() if name not in ignored},
            "metrics": {name: sorted(map(repr, points)) for name, points in histories(uri, run).items()},
            "artifacts": artifacts(uri, run),
            "inputs": [(item.dataset.name, item.dataset.digest) for item in run.inputs.dataset_inputs],
            "children": [(child.info.run_name, view(child)) for child in children(uri, run)],
        }

    return {run.data.tags["workflow.job_key"]: view(run) for run in live(uri)}


def in_process(target: Callable[..., None], *args: Any) -> None:
    """Run in a process of its own: this one has connections open, which a deleted database would live on in."""
    process = PROCESSES.Process(target=target, args=args)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_the_module_is_cheap_to_import() -> None:
    code = "import sys, cpmlho.study.tracking; print([m for m in ('mlflow', 'torch', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_configured_store_comes_before_the_environments_before_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert tracking.tracking_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(tmp_path)
    assert tracking.tracking_uri(None, Path()) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert tracking.tracking_uri(None, tmp_path) == "http://elsewhere"
    assert tracking.tracking_uri("http://here", tmp_path) == "http://here"


def test_a_run_is_logged_with_everything(uri: str, tmp_path: Path) -> None:
    lines: list[str] = []
    log_live(uri, tmp_path / "results", result(), GRADIENT, lines.append)

    assert lines == []
    assert {found.name for found in MlflowClient(uri).search_experiments()} == {"Default", "cpmlho/mnist"}
    (run,) = runs(uri)
    assert (run.info.run_name, run.info.status) == ("cpmlho seed0", "FINISHED")

    tags, spec = run.data.tags, result().spec
    assert (tags["method"], tags["dataset"], tags["seed"], tags["base"]) == ("cpmlho", "mnist", "0", "cpmlho")
    assert tags["workflow.job_key"] == "mnist/cpmlho/seed0"
    assert (tags["workflow.attempt"], tags["workflow.superseded"], tags["status"]) == ("1", "false", "done")
    assert (tags["mlflow.source.git.commit"], tags["commit"], tags["git.dirty"]) == ("c0ffee", "c0ffee", "true")
    assert (tags["change"], tags["precision"], tags["mlflow.user"]) == ("none", "float32", getpass.getuser())
    assert tags["mlflow.source.name"] == "python -m cpmlho run mnist cpmlho 0"
    assert "cpmlho" in tags["mlflow.note.content"]
    assert len(tags["config_hash"]) == 12

    params = run.data.params
    assert params["settings.dual_step"] == str(spec.settings.dual_step)
    assert params["data.hyperparameters.dropout0.start"] == "0.05"
    assert params["training.batch_size"] == "128"
    leaves = json.dumps(spec.model_dump()).count('": ') - json.dumps(spec.model_dump()).count('": {')
    assert len(params) == leaves

    found = histories(uri, run)
    for name in ("val_loss", "val_acc", "test_loss", "test_acc"):
        assert found[name] == [(row["step"], row[name]) for row in GRADIENT[HISTORY]], name
    for name in ("dropout0", "dropout1", "dropout2"):
        expected = [(row["step"], row[name]) for row in GRADIENT[HYPERPARAMETERS]]
        assert found[f"hyperparameter/{name}"] == expected, name
    newest = {epoch: min(epoch, PLANES_AT_END) - 1 for epoch in range(1, EPOCHS + 1)}
    assert found["planes/newest_phi"] == [(398 * epoch, epoch + plane / 10) for epoch, plane in newest.items()]
    assert found["planes/oldest_phi"] == [(398 * epoch, epoch) for epoch in newest]
    assert found["planes/oldest_mu"] == [(398 * epoch, 0) for epoch in newest]
    assert found["planes/g"] == [(398 * epoch, 2.5) for epoch in newest]
    assert found["planes/gradient_share"] == [(398 * epoch, 0.25) for epoch in newest]
    assert next(iter(run.data.metrics)) == "val_loss", "what a run is judged by stands first"
    assert (found["final_val_loss"], found["best_val_loss"]) == ([(0, 0.25)], [(0, 0.125)])
    assert (found["train_seconds"], found["peak_memory_mb"]) == ([(0, 10.5)], [(0, 512)])
    assert sum(map(len, found.values())) == POINTS + FINAL

    files = artifacts(uri, run)
    folder = run_dir(tmp_path / "results", result().key)
    assert files.keys() == {"spec.json", RESULT, HISTORY, HYPERPARAMETERS, PLANES}
    assert json.loads(files.pop("spec.json")) == spec.model_dump()
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}

    (item,) = run.inputs.dataset_inputs
    assert item.dataset.name == "mnist"
    assert json.loads(item.dataset.profile) == spec.data.sha256
    assert json.loads(item.dataset.source) == {"uri": "data/MNIST"}


def test_trials_are_nested_runs(uri: str, tmp_path: Path) -> None:
    log_live(uri, tmp_path, result("random_search"), SEARCH, pytest.fail)
    (parent,) = live(uri)
    first, second = children(uri, parent)
    assert len(runs(uri)) == 3
    assert (first.info.run_name, second.info.run_name) == ("trial0", "trial1")
    assert (first.info.status, second.info.status) == ("FINISHED", "FINISHED")
    assert (first.data.tags["status"], second.data.tags["status"]) == ("done", "diverged")
    assert first.data.params == {"dropout0": "0.5", "dropout1": "0.25", "dropout2": "0.75"}
    outcome = {"val_loss": 0.5, "val_acc": 0.85, "test_loss": 0.6, "test_acc": 0.8, "seconds": 12.5}
    assert first.data.metrics == outcome
    assert math.isnan(second.data.metrics["val_loss"])
    assert "test_loss" not in second.data.metrics  # infinite


def test_a_diverged_run_is_finished_and_keeps_its_nan(uri: str, tmp_path: Path) -> None:
    bad = Metrics(val_loss=NAN, val_acc=0.1, test_loss=math.inf, test_acc=0.1)
    rows: list[Row] = [{**row, "val_loss": NAN, "test_loss": -math.inf} for row in GRADIENT[HISTORY]]
    log_live(uri, tmp_path, result(status="diverged", final=bad), {HISTORY: rows}, pytest.fail)
    (run,) = live(uri)
    found = histories(uri, run)
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "diverged")
    assert [step for step, value in found["val_loss"] if math.isnan(value)] == [row["step"] for row in rows]
    assert math.isnan(run.data.metrics["final_val_loss"])
    assert not {"test_loss", "final_test_loss"} & found.keys()


def test_a_failed_run_says_why_and_the_next_attempt_replaces_it(uri: str, tmp_path: Path) -> None:
    tracker = Tracker(uri, pytest.fail)
    tracker.started(result().spec, {})
    tracker.failed("terminated by a signal")
    (run,) = live(uri)
    assert (run.info.status, run.data.tags["reason"]) == ("FAILED", "terminated by a signal")

    log_live(uri, tmp_path, result(), GRADIENT, pytest.fail)
    (new,) = live(uri)
    assert new.info.run_id != run.info.run_id
    assert new.data.tags["workflow.attempt"] == "2"
    (old,) = runs(uri, query="tags.`workflow.superseded` = 'true'")
    assert (old.info.run_id, old.info.status) == (run.info.run_id, "FAILED")


def job(uri: str, results_dir: Path, seed: int, together: Barrier) -> None:
    together.wait(60)
    log_live(uri, results_dir, result(seed=seed), GRADIENT, _refuse)


def _refuse(line: str) -> None:
    raise SystemExit(line)


@pytest.mark.slow
def test_eight_processes_at_once_on_no_database_lose_nothing(tmp_path: Path) -> None:
    uri, together = tracking.tracking_uri(None, tmp_path), PROCESSES.Barrier(8)
    jobs = [PROCESSES.Process(target=job, args=(uri, tmp_path / "results", seed, together)) for seed in range(8)]
    for process in jobs:
        process.start()
    for process in jobs:
        process.join(120)
    assert [process.exitcode for process in jobs] == [0] * 8

    found = live(uri)
    assert [run.info.run_name for run in found] == [f"cpmlho seed{seed}" for seed in range(8)]
    assert len(runs(uri)) == 8
    assert {run.info.status for run in found} == {"FINISHED"}
    for run in found:
        points = histories(uri, run)
        assert points["hyperparameter/dropout0"] == [
            (row["step"], row["dropout0"]) for row in GRADIENT[HYPERPARAMETERS]
        ]
        assert points["val_loss"] == [(row["step"], row["val_loss"]) for row in GRADIENT[HISTORY]]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("SELECT count(*) FROM metrics").fetchone() == (8 * (POINTS + FINAL),)


def dies_making_the_tables(uri: str) -> None:
    steps = itertools.count()
    made = HeadMaintainer.update_to_step

    def step(self: HeadMaintainer, *args: Any) -> None:
        if next(steps) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        made(self, *args)

    HeadMaintainer.update_to_step = step  # type: ignore[method-assign]
    store.Store(uri)


@pytest.mark.slow
def test_a_process_killed_while_making_the_tables_leaves_a_store_that_works(tmp_path: Path) -> None:
    uri = tracking.tracking_uri(None, tmp_path)
    process = PROCESSES.Process(target=dies_making_the_tables, args=(uri,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    Tracker(uri, pytest.fail).started(result().spec, {})
    assert len(live(uri)) == 1


def begin_child(uri: str, parent: Any) -> str:
    tags = {"mlflow.parentRunId": parent.info.run_id, "workflow.superseded": "false"}
    return str(MlflowClient(uri).create_run(parent.info.experiment_id, tags=tags).info.run_id)


def half_a_search(uri: str, reached: Event) -> None:
    tracker = Tracker(uri, _refuse)
    spec = result("random_search").spec
    tracker.started(spec, {})
    tracker.evaluated(SEARCH)
    (run,) = live(uri)
    begin_child(uri, run)  # in the middle of logging a third trial
    reached.set()
    time.sleep(600)


@pytest.mark.slow
def test_a_killed_run_is_closed_by_the_next_attempt(uri: str, tmp_path: Path) -> None:
    reached = PROCESSES.Event()
    process = PROCESSES.Process(target=half_a_search, args=(uri, reached))
    process.start()
    assert reached.wait(60)
    process.kill()
    process.join()
    (dead,) = live(uri)
    assert dead.info.status == "RUNNING"

    log_live(uri, tmp_path, result("random_search"), SEARCH, pytest.fail)
    (run,) = live(uri)
    assert (run.info.status, run.data.tags["workflow.attempt"]) == ("FINISHED", "2")
    assert {child.data.tags["workflow.superseded"] for child in children(uri, run)} == {"false"}
    dead = MlflowClient(uri).get_run(dead.info.run_id)
    assert (dead.info.status, dead.data.tags["workflow.superseded"]) == ("KILLED", "true")
    assert sorted(child.info.status for child in children(uri, dead)) == ["FINISHED", "FINISHED", "KILLED"]
    assert {child.data.tags["workflow.superseded"] for child in children(uri, dead)} == {"true"}
    assert runs(uri, query="attributes.status = 'RUNNING'") == []


@contextmanager
def _read_only(database: Path) -> Iterator[str]:
    """A file that can be read but not written, in a folder that can: nothing is read-only to root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    path = Path(shutil.copy(database, folder))
    path.chmod(0o444)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield f"sqlite:///{path}"
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)


@contextmanager
def _corrupt(database: Path) -> Iterator[str]:
    path = database.with_name("corrupt.db")
    path.write_bytes(b"no database " * 1000)
    yield f"sqlite:///{path}"


@contextmanager
def _folder(database: Path) -> Iterator[str]:
    (database.parent / "folder.db").mkdir()
    yield f"sqlite:///{database.parent / 'folder.db'}"


@contextmanager
def _nobody_listens(_: Path) -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def _locked_for_ever(database: Path) -> Iterator[str]:
    path = database.with_name("locked.db")
    with path.with_name("locked.db.lock").open("a") as file, pytest.MonkeyPatch.context() as patch:
        sqlite.lock(file)
        patch.setattr(sqlite, "LOCK_SECONDS", 0.3)
        yield f"sqlite:///{path}"


@contextmanager
def _breaks_later(database: Path) -> Iterator[str]:
    """Takes a run's beginning and then no metric."""
    path = Path(shutil.copy(database, database.with_name("later.db")))
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON metrics BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
        )
    yield f"sqlite:///{path}"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (_read_only, "readonly database"),
        (_corrupt, "not a database"),
        (_folder, "unable to open"),
        pytest.param(_nobody_listens, "refused", marks=pytest.mark.slow),
        (_locked_for_ever, "locked"),
        (_breaks_later, "disk is full"),
    ],
)
def test_a_broken_store_costs_one_line(
    broken: Callable[..., Any], reason: str, empty_database: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    folder = run_dir(tmp_path, result().key)
    write_run(folder, result(), GRADIENT)
    with broken(empty_database) as uri:
        tracker = Tracker(uri, lines.append)
        tracker.started(result().spec, {})
        for _ in range(EPOCHS):
            tracker.evaluated(GRADIENT)
        tracker.finished(result(), folder)
        tracker.failed("and after")
    (line,) = lines
    assert reason in line
    assert uri in line
    assert "\n" not in line
    assert capfd.readouterr() == ("", "")


def test_a_password_in_the_uri_is_not_logged() -> None:
    lines: list[str] = []
    Tracker("nonsense://user:secret@host/place", lines.append).started(result().spec, {})
    assert len(lines) == 1
    assert "secret" not in lines[0].partition(" fails")[0]
    assert "nonsense://host/place" in lines[0]


def other_protocol(folder: Path) -> Protocol:
    run = {"datasets": ["mnist"], "methods": ["random_search", "cpmlho"], "variants": [], "seeds": [0, 1]}
    return config.load([ROOT / "config.yaml"], {"results_dir": str(folder), "run": run})


def rebuild(folder: Path) -> None:
    assert tracking.track(other_protocol(folder), folder, lambda line: None)


@pytest.mark.slow
def test_rebuilding_gives_what_live_logging_gave_and_twice_the_same(uri: str, tmp_path: Path) -> None:
    network = run_dir(tmp_path, result().key) / NETWORK
    network.parent.mkdir(parents=True)
    network.write_bytes(b"\x80no text")
    for outcome, tables in ((result(), GRADIENT), (result("random_search", 1), SEARCH)):
        log_live(uri, tmp_path, outcome, tables, pytest.fail)
    before, entries = content(uri), {run.info.run_id for run in runs(uri)}
    assert before["mnist/cpmlho/seed0"]["artifacts"][NETWORK] == network.read_bytes()
    assert before.keys() == {"mnist/cpmlho/seed0", "mnist/random_search/seed1"}
    rebuild(tmp_path)
    assert {run.info.run_id for run in runs(uri)} == entries, "what was logged live was logged again"

    for path in (*tmp_path.glob("mlflow.db*"), tmp_path / "mlruns"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    SqlAlchemyStore._engine_map.pop(uri).dispose()
    in_process(rebuild, tmp_path)
    assert content(uri) == before
    entries = {run.info.run_id for run in runs(uri)}
    rebuild(tmp_path)
    assert {run.info.run_id for run in runs(uri)} == entries


@pytest.mark.slow
def test_rebuilding_replaces_what_differs_or_was_cut_short(uri: str, tmp_path: Path) -> None:
    log_live(uri, tmp_path, result(), GRADIENT, pytest.fail)
    log_live(uri, tmp_path, result(seed=1), GRADIENT, pytest.fail)
    Tracker(uri, pytest.fail).started(result(seed=1).spec, {})  # a later attempt that died
    log_live(uri, tmp_path, result("random_search"), SEARCH, pytest.fail)
    MlflowClient(uri).update_run(live(uri)[2].info.run_id, "RUNNING")  # died after the last tag
    changed = result(final=Metrics(val_loss=0.75, val_acc=0.9, test_loss=0.5, test_acc=0.8))
    write_run(run_dir(tmp_path, changed.key), changed, GRADIENT)
    rebuild(tmp_path)
    first, second, third = live(uri)
    assert third.info.status == "FINISHED"
    assert first.data.metrics["final_val_loss"] == 0.75
    assert second.data.metrics["final_val_loss"] == 0.25
    assert runs(uri, query="attributes.status = 'RUNNING'") == []


def test_rebuilding_closes_what_is_open_without_a_process(uri: str, tmp_path: Path) -> None:
    key = result("random_search").key
    tracker = Tracker(uri, pytest.fail)
    tracker.started(result("random_search").spec, {})
    child = begin_child(uri, live(uri)[0])
    with locked(run_dir(tmp_path, key), pytest.fail):
        tracking.track(other_protocol(tmp_path), tmp_path, lambda line: None)
    assert live(uri)[0].info.status == "RUNNING"
    tracking.track(other_protocol(tmp_path), tmp_path, lambda line: None)
    (entry,) = live(uri)
    assert (entry.info.status, entry.data.tags["status"]) == ("KILLED", "killed")
    assert MlflowClient(uri).get_run(child).info.status == "KILLED"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (RESULT, '{"spec": '),
        (HISTORY, "epoch,step\n1,2\n3\n"),
        (PLANES, "a,b\n1,2\n"),
        (TRIALS, "trial,val_loss\n1,2\n"),
    ],
)
def test_a_damaged_file_is_one_line_and_the_other_runs_go_on(uri: str, tmp_path: Path, name: str, text: str) -> None:
    for seed in (0, 1):
        write_run(run_dir(tmp_path, result(seed=seed).key), result(seed=seed), GRADIENT)
    damaged = run_dir(tmp_path, result().key) / name
    damaged.write_text(text)
    lines: list[str] = []
    assert not tracking.track(other_protocol(tmp_path), tmp_path, lines.append)
    assert [line for line in lines if str(damaged) in line]
    assert [run.info.run_name for run in runs(uri)] == ["cpmlho seed1"]


def test_there_is_one_live_summary_with_tables_and_figures(uri: str, tmp_path: Path) -> None:
    make_tables(tmp_path)
    tracking.log_summary(other_protocol(tmp_path), tmp_path, pytest.fail)
    with (tmp_path / "tables" / "table1.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dataset", "network", "method", "paper", "mean", "std"])
        writer.writerow(["mnist", "MLP (2x1200)", "cpmlho", 0.05, 0.0625, 0.01])
        writer.writerow(["mnist", "MLP (2x1200)", "delta_stn", 0.06, "", ""])
    seal(tmp_path / "tables", ["table1.csv", "table2.csv"])
    tracking.log_summary(other_protocol(tmp_path), tmp_path, pytest.fail)

    (run,) = live(uri, "summary")
    assert (run.info.run_name, run.info.status, run.data.tags["workflow.attempt"]) == ("summary", "FINISHED", "2")
    assert run.data.metrics == {"table1/mnist/MLP _2x1200_/cpmlho": 0.0625}
    assert artifacts(uri, run).keys() == MADE | {"tables/table1.csv"}
    assert len(runs(uri, "summary")) == 2


# --- a process of its own -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_tracker_process_logs_what_a_tracker_logs(uri: str, tmp_path: Path) -> None:
    tracker = tracking.TrackerProcess(uri, pytest.fail)
    tracker.started(result().spec, {})
    tracker.evaluated(GRADIENT, None)
    folder = run_dir(tmp_path, result().key)
    write_run(folder, result(), GRADIENT)
    tracker.finished(result(), folder)
    (run,) = live(uri)
    log_live(uri, tmp_path, result(), GRADIENT, pytest.fail)
    (again,) = live(uri)
    assert histories(uri, run) == histories(uri, again)
    assert run.data.params == again.data.params
    assert artifacts(uri, run) == artifacts(uri, again)
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_what_an_interrupted_attempt_had_is_logged_again(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "INTERRUPTION_SECONDS", 600)
    tracker = tracking.TrackerProcess(uri, pytest.fail)
    tracker.started(result().spec, GRADIENT)
    tracker.failed("interrupted")
    (run,) = live(uri)
    assert (run.info.status, run.data.tags["reason"]) == ("FAILED", "interrupted")
    assert [value for _, value in histories(uri, run)["val_loss"]] == [row["val_loss"] for row in GRADIENT[HISTORY]]


def starts_and_waits(uri: str, reached: Event) -> None:
    tracking.TrackerProcess(uri, _refuse).started(result().spec, {})
    reached.set()
    time.sleep(600)


@pytest.mark.slow
def test_a_killed_run_does_not_stay_open(uri: str) -> None:
    MlflowClient(uri).create_experiment("cpmlho/mnist")  # so that it can be asked for at once
    reached = PROCESSES.Event()
    process = PROCESSES.Process(target=starts_and_waits, args=(uri, reached))
    process.start()
    assert reached.wait(60)
    process.kill()
    process.join()
    deadline = time.monotonic() + 60
    while not (found := live(uri)) or found[0].info.status == "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (found[0].info.status, found[0].data.tags["status"]) == ("KILLED", "killed")


def test_a_run_does_not_wait_for_a_store_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "INTERRUPTION_SECONDS", 0.5)
    lines: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        tracker = tracking.TrackerProcess(f"http://127.0.0.1:{silent.getsockname()[1]}", lines.append)
        tracker.started(result().spec, {})
        for _ in range(200):  # more than a pipe holds
            tracker.evaluated(GRADIENT, None)
        tracker.failed("interrupted")
    assert lines == ["MLflow takes too long, the run goes without; `python -m cpmlho track` logs what is missing"]
