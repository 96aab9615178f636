"""MLflow's server and page as a person meets them: a restart, the printed link, a run, the report's preview."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Server
from test_tracking import (
    GRADIENT,
    ROOT,
    SEARCH,
    artifacts,
    children,
    content,
    histories,
    live,
    log_live,
    make_tables,
    other_protocol,
    result,
    track,
    write,
)

from cpmlho.study import tracking
from cpmlho.study.results import HISTORY, HYPERPARAMETERS, TRIALS
from cpmlho.study.tracking import entry

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PATIENCE = 300_000  # milliseconds, of a busy machine
REPORT = "<!doctype html><title>Report</title><h1>Does it hold up?</h1>"


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
    monkeypatch.setattr(tracking, "FAREWELL_SECONDS", 600)
    monkeypatch.setenv(entry.RETRIES, "9")  # so that a busy machine has the time to start it again
    tracker = tracking.TrackerProcess(server.uri, tmp_path, pytest.fail)
    tracker.started(result().spec, {})
    rows = GRADIENT[HYPERPARAMETERS]
    tracker.evaluated({HYPERPARAMETERS: rows[:200]}, None)
    server.kill()
    tracker.evaluated({HYPERPARAMETERS: rows[200:], HISTORY: GRADIENT[HISTORY]}, None)
    server.start()
    folder = write(tmp_path, result())
    tracker.finished(result(), folder)
    server.wait()
    (run,) = live(server.uri)
    assert run.info.status == "FINISHED"
    found = histories(server.uri, run)
    assert found["hyperparameter/dropout0"] == [(row["step"], row["dropout0"]) for row in rows]
    assert found["val_loss"] == [(row["step"], row["val_loss"]) for row in GRADIENT[HISTORY]]
    assert artifacts(server.uri, run) == {path.name: path.read_bytes() for path in entry.run_files(folder).values()}


def test_a_server_gets_what_a_database_gets(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for outcome in (result(), result("random_search", 1)):
        write(tmp_path, outcome)
    make_tables(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    for anew in (2, 0):
        done, lines = track(tmp_path)
        assert done, lines
        assert lines[-1] == f"{anew} runs logged, {2 - anew} already there, with tables and figures"
    assert not (tmp_path / "mlruns").exists(), "artifacts went past the server"
    assert content(server.uri).keys() == {"mnist/cpmlho/seed0", "mnist/random_search/seed1"}
    search = next(run for run in live(server.uri) if run.data.tags["method"] == "random_search")
    assert len(children(server.uri, search)) == len(SEARCH[TRIALS])
    tracking.serve(other_protocol(tmp_path), tmp_path, None, lines.append)
    assert lines[-1].startswith(f"MLflow: {server.uri}/#/experiments/")


@pytest.fixture
def page() -> Iterator[Any]:
    """A page in a browser that has seen nothing yet."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=[*QUIET, "--disable-component-update", "--disable-sync"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 2400})
        page.set_default_timeout(PATIENCE)
        yield page
        browser.close()


@pytest.mark.parametrize("variables", [{}, {"MLFLOW_HOST": "0.0.0.0", "MLFLOW_STATIC_PREFIX": "/team"}])
def test_the_printed_link_leads_to_the_runs_best_first(
    page: Any, uri: str, tmp_path: Path, variables: dict[str, str]
) -> None:
    """Also where the environment moves MLflow's page, and another server has the usual port."""
    for method in ("cpmlho_dropout0_0.8", "random_search"):
        log_live(uri, tmp_path, result(method))
    worse = [{**row, "val_loss": 0.9, "test_loss": 1.0} for row in GRADIENT[HISTORY]]
    metrics = result().final.__class__(val_loss=0.9, val_acc=0.9, test_loss=1.0, test_acc=0.8)
    write(tmp_path, result(final=metrics, best=metrics), {**GRADIENT, HISTORY: worse})
    (tmp_path / "report.html").write_text(REPORT)
    assert track(tmp_path)[0]
    (tmp_path / "over.yaml").write_text(f"results_dir: {tmp_path}\nrun: {{datasets: [fashionmnist, mnist]}}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "cpmlho", "ui", "--config", str(ROOT / "config.yaml"), "--config", "over.yaml"]
    environment = {**os.environ, **variables, "MLFLOW_PORT": port, "MLFLOW_TRACKING_URI": uri}
    served = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert served.stderr is not None
        link = next(line.split()[1] for line in served.stderr if line.startswith("MLflow: http"))
        assert link.startswith(f"http://127.0.0.1:{port}{variables.get('MLFLOW_STATIC_PREFIX', '')}/#/")
        page.goto(link)
        page.get_by_text("cpmlho seed0 dropout0_0.8").first.wait_for()
        page.get_by_text("0.142857").first.wait_for()
        shown = page.inner_text("body")
        places = [shown.index(name) for name in ("cpmlho seed0 dropout0_0.8", "random_search seed0", "cpmlho seed0\n")]
        assert places == sorted(places), "not the best run first"
        heads = [page.get_by_text(f"final_{name}_loss", exact=True).first for name in ("val", "test", "train")]
        lefts = [head.bounding_box()["x"] for head in heads]
        assert lefts == sorted(lefts), "not the validation loss first"
        assert lefts[-1] < 1400, "a loss is out of sight"

        page.get_by_text("cpmlho seed0 dropout0_0.8").first.click()
        page.get_by_text("python -m cpmlho run mnist cpmlho_dropout0_0.8 0").wait_for()
        page.get_by_text("final_val_loss").first.wait_for()
        body = page.inner_text("body")
        assert re.findall(r"^(?:\w+/\w+|\w+_(?:loss|acc))$", body, re.MULTILINE)[0] == "val_loss"

        (summary,) = live(uri, "summary")
        where = f"experiments/{summary.info.experiment_id}/runs/{summary.info.run_id}/artifacts/report.html"
        page.goto(f"{link.partition('#')[0]}#/{where}?workflowType=machine_learning")
        page.frame_locator("iframe").get_by_text("Does it hold up?").wait_for()
    finally:
        os.killpg(served.pid, signal.SIGINT)
        served.wait(60)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(port))):
                return
        time.sleep(0.2)
    pytest.fail("the page is served after Ctrl-C")
