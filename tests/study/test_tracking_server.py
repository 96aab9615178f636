"""MLflow behind a server: the artifacts go through it, and it may be restarted on the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Server
from test_tracking import (
    GRADIENT,
    SEARCH,
    artifacts,
    children,
    content,
    histories,
    live,
    make_tables,
    other_protocol,
    result,
)

from cpmlho.study import tracking
from cpmlho.study.results import HISTORY, HYPERPARAMETERS, RESULT, run_dir, write_run
from cpmlho.study.tracking import entry, store
from cpmlho.study.tracking import process as process_module

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path, uri: str) -> Iterator[Server]:
    server = Server(tmp_path, uri)
    server.start()
    server.wait()
    yield server
    server.kill()


def test_a_server_that_is_killed_and_restarted_on_the_way_loses_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "FAREWELL_SECONDS", 600)
    monkeypatch.setenv(store.RETRIES, "9")  # so that a busy machine has the time to start it again
    tracker = tracking.TrackerProcess(server.uri, pytest.fail)
    tracker.started(result().spec, {})
    middle = len(GRADIENT[HYPERPARAMETERS]) // 2
    tracker.evaluated({HYPERPARAMETERS: GRADIENT[HYPERPARAMETERS][:middle]}, None)
    server.kill()
    tracker.evaluated({HYPERPARAMETERS: GRADIENT[HYPERPARAMETERS][middle:], HISTORY: GRADIENT[HISTORY]}, None)
    server.start()
    folder = run_dir(tmp_path, result().key)
    write_run(folder, result(), GRADIENT)
    tracker.finished(result(), folder)

    server.wait()
    (run,) = live(server.uri)
    assert run.info.status == "FINISHED"
    found = histories(server.uri, run)
    rows = GRADIENT[HYPERPARAMETERS]
    assert found["hyperparameter/dropout0"] == [(row["step"], row["dropout0"]) for row in rows]
    assert found["val_loss"] == [(row["step"], row["val_loss"]) for row in GRADIENT[HISTORY]]
    files = artifacts(server.uri, run)
    assert files.keys() == {"spec.json", *entry.run_files(folder)}
    assert files[RESULT] == (folder / RESULT).read_bytes()


def test_a_server_gets_what_a_database_gets(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for outcome, tables in ((result(), GRADIENT), (result("random_search", 1), SEARCH)):
        write_run(run_dir(tmp_path, outcome.key), outcome, tables)
    make_tables(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    lines: list[str] = []
    for anew in (2, 0):
        assert tracking.track(other_protocol(tmp_path), tmp_path, lines.append), lines
        assert f"{anew} runs logged, {2 - anew} were there, with tables and figures" in lines
    assert lines[-1].startswith(f"MLflow's page on them: {server.uri}/#/experiments/")
    assert not (tmp_path / "mlruns").exists(), "artifacts went past the server"
    assert content(server.uri).keys() == {"mnist/cpmlho/seed0", "mnist/random_search/seed1"}
    search = next(run for run in live(server.uri) if run.data.tags["method"] == "random_search")
    assert len(children(server.uri, search)) == len(SEARCH["trials.csv"])
    assert os.environ[store.RETRIES] == store.PATIENT, "a server that was there is waited for"
