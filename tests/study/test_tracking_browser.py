"""MLflow's page as a person meets it, in a real browser: the printed link, a run, the report's preview."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Server
from test_tracking import GRADIENT, live, other_protocol, result

from cpmlho.study import tracking
from cpmlho.study.results import run_dir, write_run

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PATIENCE = 300_000  # milliseconds, of a busy machine
REPORT = "<!doctype html><title>Report</title><h1>Does it hold up?</h1>"


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


def test_the_link_leads_to_the_runs_and_these_to_what_they_show(page: Any, uri: str, tmp_path: Path) -> None:
    write_run(run_dir(tmp_path, result().key), result(), GRADIENT)
    (tmp_path / "report.html").write_text(REPORT)
    assert tracking.track(other_protocol(tmp_path), tmp_path, lambda line: None)
    server = Server(tmp_path, uri)
    server.start()
    try:
        server.wait()
        page.goto(tracking.ui_link(server.uri))
        page.get_by_text("cpmlho seed0").first.click()
        page.get_by_text("python -m cpmlho run mnist cpmlho 0").wait_for()
        page.get_by_text("final_val_loss").first.wait_for()
        shown = page.inner_text("body")
        metrics = re.findall(r"^(?:hyperparameter/\w+|planes/\w+|\w+_(?:loss|acc))$", shown, re.MULTILINE)
        assert metrics[0] == "val_loss"

        (summary,) = live(uri, "summary")
        where = f"experiments/{summary.info.experiment_id}/runs/{summary.info.run_id}/artifacts/report.html"
        page.goto(f"{server.uri}/#/{where}?workflowType=machine_learning")
        page.frame_locator("iframe").get_by_text("Does it hold up?").wait_for()
    finally:
        server.kill()
