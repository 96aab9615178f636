"""MLflow as a view of the files, where a store was moved, deleted, is of another version, or has a password."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from test_tracking import (
    GRADIENT,
    ROOT,
    SEARCH,
    artifacts,
    histories,
    live,
    log_live,
    other_protocol,
    result,
    runs,
)

from cpmlho.study import tracking
from cpmlho.study.results import RESULT, TRIALS, run_dir, write_run
from cpmlho.study.tracking import entry, place, sqlite, store
from cpmlho.study.tracking.tracker import Tracker


def track(folder: Path) -> tuple[bool, list[str]]:
    lines: list[str] = []
    return tracking.track(other_protocol(folder), folder, lines.append), lines


def make_tables(folder: Path) -> None:
    for path in ("tables/table2.csv", "figures/figure1.png"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(path)


def test_a_moved_checkout_keeps_its_artifacts(uri: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "über there"
    here.mkdir()
    shutil.copy(tmp_path / "mlflow.db", here)
    log_live(tracking.tracking_uri(None, here), here, result(), GRADIENT, pytest.fail)
    here.rename(there)
    done, lines = track(there)
    assert done, lines
    assert not here.exists(), "the old place was made again"
    moved = tracking.tracking_uri(None, there)
    assert len(runs(moved)) == 1, "what was there was logged again"
    (run,) = live(moved)
    files = artifacts(moved, run)
    assert json.loads(files[RESULT])["status"] == "done"
    log_live(moved, there, result(seed=1), GRADIENT, pytest.fail)
    assert not here.exists()


@pytest.mark.slow
def test_artifacts_that_were_deleted_come_back(uri: str, tmp_path: Path) -> None:
    log_live(uri, tmp_path, result("random_search"), SEARCH, pytest.fail)
    key = result("random_search").key
    make_tables(tmp_path)
    assert track(tmp_path)[0]
    shutil.rmtree(tmp_path / "mlruns")
    assert track(tmp_path)[0]
    assert artifacts(uri, live(uri)[0]).keys() == {"spec.json", *entry.run_files(run_dir(tmp_path, key))}
    assert artifacts(uri, live(uri, "summary")[0]).keys() == {"tables/table2.csv", "figures/figure1.png"}


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["artifact", "trial", "table"])
def test_an_entry_that_lacks_something_is_written_anew(uri: str, tmp_path: Path, lost: str) -> None:
    outcome = result("random_search")
    log_live(uri, tmp_path, outcome, SEARCH, pytest.fail)
    (run,) = live(uri)
    assert track(tmp_path)[0]
    assert live(uri)[0].info.run_id == run.info.run_id
    if lost == "artifact":
        next((tmp_path / "mlruns").rglob(TRIALS)).unlink()
    elif lost == "trial":
        child = next(each for each in runs(uri) if "mlflow.parentRunId" in each.data.tags)
        MlflowClient(uri).delete_run(child.info.run_id)
    else:  # the files were edited after the run
        rows = [{**row, "val_loss": 0.125} for row in SEARCH[TRIALS]]
        write_run(run_dir(tmp_path, outcome.key), outcome, {**SEARCH, TRIALS: rows})
    assert track(tmp_path)[0]
    (again,) = live(uri)
    assert again.info.run_id != run.info.run_id


def test_no_run_found_is_no_success(uri: str, tmp_path: Path) -> None:
    done, lines = track(tmp_path)
    assert not done
    assert lines == [f"0 of 4 runs found in {tmp_path}/"]


def test_a_finished_summary_is_not_replaced_by_an_empty_one(uri: str, tmp_path: Path) -> None:
    protocol = other_protocol(tmp_path)
    lines: list[str] = []
    make_tables(tmp_path)
    assert tracking.log_summary(protocol, tmp_path, pytest.fail)
    (before,) = live(uri, "summary")

    shutil.rmtree(tmp_path / "mlruns")
    (tmp_path / "mlruns").write_text("a file where a folder must be")
    (tmp_path / "tables" / "table2.csv").write_text("changed")
    assert not tracking.log_summary(protocol, tmp_path, lines.append)
    assert len(lines) == 1
    assert [run.info.run_id for run in live(uri, "summary")] == [before.info.run_id]
    assert {run.info.status for run in runs(uri, "summary")} == {"FINISHED", "FAILED"}

    for name in ("tables", "figures"):
        shutil.rmtree(tmp_path / name)
    assert not tracking.log_summary(protocol, tmp_path, lines.append)
    assert "make them first" in lines[-1]
    assert [run.info.run_id for run in live(uri, "summary")] == [before.info.run_id]


def test_a_finished_run_is_not_replaced_by_one_that_failed(uri: str, tmp_path: Path) -> None:
    log_live(uri, tmp_path, result(), GRADIENT, pytest.fail)
    (before,) = live(uri)
    tracker = Tracker(uri, pytest.fail)
    tracker.started(result().spec, {})
    tracker.failed("out of memory")
    assert [run.info.run_id for run in live(uri)] == [before.info.run_id]
    assert sorted(run.info.status for run in runs(uri)) == ["FAILED", "FINISHED"]


def test_a_deleted_experiment_is_no_success_and_the_remedy_works(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_live(uri, tmp_path, result(), GRADIENT, pytest.fail)
    client = MlflowClient(uri)
    number = client.get_experiment_by_name("cpmlho/mnist").experiment_id
    client.delete_experiment(number)
    done, lines = track(tmp_path)
    assert not done
    remedy = f"experiments restore --experiment-id {number}"
    assert f"MLFLOW_TRACKING_URI={uri}" in lines[-1]
    assert remedy in lines[-1]
    client.restore_experiment(number)
    assert track(tmp_path)[0]
    assert live(uri)[0].info.status == "FINISHED"


def test_a_database_of_another_schema_is_no_success_and_names_the_remedy(uri: str, tmp_path: Path) -> None:
    write_run(run_dir(tmp_path, result().key), result(), GRADIENT)
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '84291f40a231'")
    done, lines = track(tmp_path)
    assert not done
    assert f"mlflow db upgrade {uri}" in lines[-1]


def test_a_remedy_at_the_end_of_a_long_error_is_not_cut_off() -> None:
    text = place.one_line("what is wrong " * 500 + "now run this", "sqlite:///x.db")
    assert text.startswith("what is wrong")
    assert text.endswith("now run this")
    assert len(text) < 2100


def test_a_statement_and_its_values_are_no_part_of_an_error() -> None:
    assert place.one_line("disk is full\n[SQL: INSERT ...]\n[parameters: (1, 2)]", "sqlite:///x.db") == "disk is full"


@pytest.mark.parametrize(
    ("address", "public", "secret"),
    [
        ("http://user:s3cret@host:80/place", "http://host:80/place", "s3cret"),
        ("http://user:s3/c?r@et@host:80/place?x=1", "http://host:80/place", "s3/c?r@et"),
        ("https://t0ken@host", "https://host", "t0ken@"),
        ("postgresql://user:s3/cr@et@host/runs", "postgresql://host/runs", "s3/cr@et"),
        ("postgresql://host/runs?user=u&password=s3cret", "postgresql://host/runs", "s3cret"),
        ("mysql+pymysql://u:s3%40cret@host/runs", "mysql+pymysql://host/runs", "s3@cret"),
    ],
)
def test_secrets_are_in_no_message(address: str, public: str, secret: str) -> None:
    assert place.shown(address) == public
    said = place.one_line(f"API request to {address}/api failed: '{address}' and '{secret}' are wrong", address)
    assert public in said
    assert secret not in said


def test_a_containers_user_without_a_name_and_a_home_is_tracked(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(RuntimeError):
        Path.home()
    log_live(uri, tmp_path, result(), GRADIENT, pytest.fail)
    assert [run.info.status for run in live(uri)] == ["FINISHED"]


def test_an_address_that_ends_with_a_line_break_is_taken_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000\n")
    assert place.tracking_uri(None, Path()) == "http://host:5000"


def test_a_path_is_no_secret() -> None:
    assert place.shown("sqlite:////home/u@corp/mlflow.db") == "sqlite:////home/u@corp/mlflow.db"


@pytest.mark.slow
def test_no_argument_and_no_line_of_a_tracker_has_the_password(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    process = tracking.TrackerProcess("http://user:s3cret@127.0.0.1:9/", lines.append)
    arguments = Path(f"/proc/{process._process.pid}/cmdline").read_bytes()
    process.started(result().spec, {})
    process.failed("interrupted")
    process._process.wait(120)
    said = capfd.readouterr()
    assert b"cpmlho.study.tracking" in arguments
    assert b"s3cret" not in arguments
    assert "MLflow at http://127.0.0.1:9/ fails" in said.err
    assert "s3cret" not in said.err + said.out + "".join(lines)


@pytest.mark.parametrize("verb", ["track", "summary"])
def test_the_verbs_have_a_status_and_no_password_where_no_server_answers(tmp_path: Path, verb: str) -> None:
    make_tables(tmp_path)
    write_run(run_dir(tmp_path, result().key), result(), GRADIENT)
    (tmp_path / "over.yaml").write_text(f"results_dir: {tmp_path}\n")
    command = [sys.executable, "-m", "cpmlho", verb, "--config", str(ROOT / "config.yaml"), "--config", "over.yaml"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": "http://user:s3cret@127.0.0.1:9"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Connection refused" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_rebuilt_run_has_the_times_of_its_files(uri: str, tmp_path: Path) -> None:
    outcome = result("random_search", total_seconds=100.0)
    folder = run_dir(tmp_path, outcome.key)
    write_run(folder, outcome, SEARCH)
    os.utime(folder / RESULT, (1_000_100, 1_000_100))
    assert track(tmp_path)[0]
    (run,) = live(uri)
    assert (run.info.start_time, run.info.end_time) == (1_000_000_000, 1_000_100_000)
    trials = sorted(runs(uri, query="tags.`mlflow.parentRunId` != ''"), key=lambda each: each.info.run_name)
    between = 1_000_000_000 + int(100_000 * 12.5 / 16)
    assert [(each.info.start_time, each.info.end_time) for each in trials] == [
        (1_000_000_000, between),
        (between, 1_000_100_000),
    ]
    points = MlflowClient(uri).get_metric_history(run.info.run_id, "val_loss")
    assert [point.timestamp for point in points] == [1_000_000_000 + int(100_000 * epoch / 7) for epoch in range(1, 8)]


def test_a_run_is_logged_whose_file_an_archive_gave_no_time(uri: str, tmp_path: Path) -> None:
    folder = run_dir(tmp_path, result().key)
    write_run(folder, result(), GRADIENT)
    os.utime(folder / RESULT, (0, 0))
    assert track(tmp_path)[0]
    (run,) = live(uri)
    assert histories(uri, run)


def test_a_rows_time_is_that_of_the_evaluation_that_followed() -> None:
    times = entry.Times(1000, 2000, ((10, 0.25), (20, 1.0)))
    assert [times.at(step) for step in (1, 10, 11, 20, 21)] == [1250, 1250, 2000, 2000, 2000]


def test_a_variants_name_begins_with_method_and_seed_and_its_tags_say_what_it_changes(uri: str, tmp_path: Path) -> None:
    log_live(uri, tmp_path, result("cpmlho_cuts_only", 3), GRADIENT, pytest.fail)
    (run,) = live(uri)
    assert run.info.run_name == "cpmlho seed3 cuts_only"
    assert (run.data.tags["base"], run.data.tags["change"]) == ("cpmlho", "settings.mixed_level False")
    assert len(histories(uri, run)) <= 24


def test_the_link_opens_the_runs(uri: str, tmp_path: Path) -> None:
    assert tracking.ui_link(uri) == "http://127.0.0.1:5000/#/experiments?workflowType=machine_learning"
    log_live(uri, tmp_path, result(), GRADIENT, pytest.fail)
    number = MlflowClient(uri).get_experiment_by_name("cpmlho/mnist").experiment_id
    expected = f"http://127.0.0.1:5000/#/experiments/{number}/runs?workflowType=machine_learning"
    assert tracking.ui_link(uri) == expected
    assert tracking.ui_link("http://user:s3cret@127.0.0.1:9/") == "http://127.0.0.1:9"


def test_another_projects_experiments_stay_where_they_are(uri: str, tmp_path: Path) -> None:
    client = MlflowClient(uri)
    ours = client.create_experiment("cpmlho/own", "s3://bucket/own")
    other = client.create_experiment("other", "file:///elsewhere/mlruns/other")
    sqlite.relocate(tmp_path / "mlflow.db", store.PREFIX)
    assert client.get_experiment(ours).artifact_location == "s3://bucket/own"
    assert client.get_experiment(other).artifact_location.endswith("/elsewhere/mlruns/other")
