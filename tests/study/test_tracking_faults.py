"""MLflow as a view of the files, where a store was moved, deleted, is of another version, or has a password."""

from __future__ import annotations

import json
import os
import pwd
import random
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.utils.validation import _validate_metric_name
from test_mutations import DAMAGES
from test_tracking import (
    GRADIENT,
    MADE,
    ROOT,
    SEARCH,
    artifacts,
    content,
    histories,
    live,
    log_live,
    make_tables,
    other_protocol,
    result,
    runs,
)

from cpmlho.study import tracking
from cpmlho.study.results import HISTORY, HYPERPARAMETERS, RESULT, TRIALS, ResultError, run_dir, write_run
from cpmlho.study.tracking import entry, place, sqlite, store
from cpmlho.study.tracking import process as process_module
from cpmlho.study.tracking.tracker import Tracker


def track(folder: Path) -> tuple[bool, list[str]]:
    lines: list[str] = []
    return tracking.track(other_protocol(folder), folder, lines.append), lines


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
    assert artifacts(uri, live(uri, "summary")[0]).keys() == MADE


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
    make_tables(tmp_path, "changed")
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


@pytest.mark.slow
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


@pytest.mark.slow
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


# What is tracked is damaged


class Shelf:
    """In the place of a store: it takes what MLflow takes, and nothing else."""

    client = SimpleNamespace(log_text=lambda *_: None, log_artifact=lambda *_: None)

    def begin(self, *_: object) -> str:
        return "run"

    def has(self, *_: object) -> bool:
        return False

    def log(self, run_id: str, points: store.Points, at: Callable[[int], int], params: object = None) -> None:
        for (name, step), value in points.items():
            _validate_metric_name(name)
            assert isinstance(value, int | float)
            assert abs(step) < 2**63
            assert 0 <= at(step) < 2**63

    def log_dataset(self, *_: object, **__: object) -> None: ...

    def log_child(self, *arguments: Any) -> None:
        self.log("", arguments[4][0], lambda _: 0)

    def end(self, *_: object) -> None: ...


def test_no_damaged_file_stops_the_tracking_of_the_other_runs(tmp_path: Path) -> None:
    """It is refused by name, before anything is logged, or can be logged."""
    generator, outcomes = random.Random(8), Counter[str]()
    for outcome, tables in ((result(), GRADIENT), (result("random_search"), SEARCH)):
        write_run(run_dir(tmp_path, outcome.key), outcome, {name: rows[:40] for name, rows in tables.items()})
    paths = sorted(tmp_path.rglob("[a-z]*.[cj]s*"))
    for _ in range(400):
        path, name = generator.choice(paths), generator.choice(list(DAMAGES))
        whole = path.read_bytes()
        path.write_bytes(DAMAGES[name](generator, whole))
        tracker = Tracker("", pytest.fail)
        tracker.__dict__["_store"] = Shelf()
        try:
            assert tracking.log_run(tracker, path.parent)
            outcomes["logged"] += 1
            said = f"{path}: "
        except ResultError as error:
            outcomes["refused"] += 1
            said = str(error)
        assert said.startswith(f"{path.parent}/"), name
        assert "\n" not in said
        path.write_bytes(whole)
    assert min(outcomes.values()) > 20


WRONG: dict[str, tuple[str, Callable[[str], str]]] = {
    "a time that is none": (RESULT, lambda text: text.replace('"ended": null', '"ended": "yesterday"')),
    "no time at all": (RESULT, lambda text: text.replace('"total_seconds": 12.5', '"total_seconds": NaN')),
    "seconds that are no number": (HISTORY, lambda text: text.replace(",1.5,", ",nan,")),
    "a value of nothing that is tuned": (RESULT, lambda text: text.replace('"dropout0": 0.557', '"drop`out0": 0.557')),
    "a column of nothing that is tuned": (HYPERPARAMETERS, lambda text: text.replace("dropout0", "drop`out0")),
    "of a future version": (RESULT, lambda text: text.replace('"status"', '"energy": 1.5,\n "status"')),
    "of another run": (RESULT, lambda text: text.replace('"seed": 0', '"seed": 1')),
    "cut short after a line": (HISTORY, lambda text: text.rpartition("7,")[0]),
    "without a row": (HISTORY, lambda text: text.partition("\n")[0]),
}


def refused(folder: Path, path: Path) -> None:
    done, lines = track(folder)
    assert not done
    [line] = [line for line in lines if line.startswith(f"{path}: ")]
    assert "\n" not in line


@pytest.mark.parametrize(("name", "change"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_one_line_and_no_entry(
    uri: str, tmp_path: Path, name: str, change: Callable[[str], str]
) -> None:
    folder = run_dir(tmp_path, result().key)
    write_run(folder, result(), GRADIENT)
    whole = (folder / name).read_text()
    (folder / name).write_text(change(whole))
    assert (folder / name).read_text() != whole
    refused(tmp_path, folder / name)
    assert MlflowClient(uri).get_experiment_by_name("cpmlho/mnist") is None, "something was logged"


@pytest.mark.parametrize(
    ("method", "name"), [("cpmlho", HISTORY), ("cpmlho", HYPERPARAMETERS), ("random_search", TRIALS)]
)
def test_a_table_that_is_gone_is_one_line_and_what_was_logged_stays(
    uri: str, tmp_path: Path, method: str, name: str
) -> None:
    log_live(uri, tmp_path, result(method), SEARCH if name == TRIALS else GRADIENT, pytest.fail)
    (before,) = live(uri)
    path = run_dir(tmp_path, result(method).key) / name
    path.unlink()
    refused(tmp_path, path)
    (after,) = live(uri)
    assert after.info.run_id == before.info.run_id


@pytest.mark.parametrize("damage", ["edited", "cut short", "gone"])
def test_damaged_tables_are_one_line_and_the_summary_stays(uri: str, tmp_path: Path, damage: str) -> None:
    write_run(run_dir(tmp_path, result().key), result(), GRADIENT)
    make_tables(tmp_path)
    assert track(tmp_path)[0]
    (before,) = live(uri, "summary")
    path = tmp_path / "tables" / "table2.csv"
    if damage == "edited":
        path.write_text("edited")
    else:
        (path if damage == "gone" else path.with_name("SHA256SUMS")).unlink()
    refused(tmp_path, path.parent)
    with pytest.raises(ResultError, match=r"tables: .*; make the tables .*: python -m cpmlho tables"):
        tracking.log_summary(other_protocol(tmp_path), tmp_path, pytest.fail)
    assert [run.info.run_id for run in runs(uri, "summary")] == [before.info.run_id]


# Other ends of a tracker


def test_a_summary_that_was_killed_does_not_stay_open(uri: str, tmp_path: Path) -> None:
    """Also where the next one finds everything logged already."""
    make_tables(tmp_path)
    assert tracking.log_summary(other_protocol(tmp_path), tmp_path, pytest.fail)
    (before,) = live(uri, "summary")
    store.Store(uri).begin("summary", "summary", "summary", {}, 0)
    assert tracking.log_summary(other_protocol(tmp_path), tmp_path, pytest.fail)
    assert [run.info.run_id for run in live(uri, "summary")] == [before.info.run_id]
    assert sorted(run.info.status for run in runs(uri, "summary")) == ["FINISHED", "KILLED"]


def test_an_interrupted_summary_is_closed_at_once(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise SystemExit(143)

    make_tables(tmp_path)
    monkeypatch.setattr(store.Store, "log", interrupted)
    with pytest.raises(SystemExit):
        tracking.log_summary(other_protocol(tmp_path), tmp_path, pytest.fail)
    assert [run.info.status for run in runs(uri, "summary")] == ["KILLED"]


@pytest.mark.parametrize("text", [None, "second"])
def test_tags_that_were_edited_in_the_page_stop_nothing(uri: str, tmp_path: Path, text: str | None) -> None:
    log_live(uri, tmp_path, result(), GRADIENT, pytest.fail)
    (before,) = live(uri)
    client = MlflowClient(uri)
    client.delete_tag(before.info.run_id, store.ATTEMPT)
    if text:
        client.set_tag(before.info.run_id, store.ATTEMPT, text)
    log_live(uri, tmp_path, result(total_seconds=13.5), GRADIENT, pytest.fail)
    (after,) = live(uri)
    assert after.info.run_id != before.info.run_id


def test_what_is_logged_is_there_at_the_end_also_where_mlflow_is_told_to_log_later(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_live(uri, tmp_path, result(), GRADIENT, pytest.fail)
    before = content(uri)
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    lines: list[str] = []
    log_live(uri, tmp_path, result(), GRADIENT, lines.append)
    assert lines == []
    assert content(uri) == before


@pytest.mark.slow
def test_a_result_that_is_gone_when_the_tracker_comes_to_it_is_no_traceback(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process_module, "FAREWELL_SECONDS", 600)
    process = tracking.TrackerProcess(uri, pytest.fail)
    process.started(result().spec, {})
    process.finished(result(), tmp_path / "gone")
    (run,) = live(uri)
    assert run.info.status == "FAILED"
    assert run.data.tags["reason"].startswith(f"{tmp_path}/gone/{RESULT}: cannot be read: ")
    assert "Traceback" not in capfd.readouterr().err
