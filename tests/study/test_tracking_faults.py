"""MLflow where something is wrong: the store, a file, a path, a proxy, a port."""

from __future__ import annotations

import http.server
import json
import pwd
import re
import shutil
import socket
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow import MlflowClient
from test_tracking import (
    MADE,
    ROOT,
    artifacts,
    content,
    live,
    log_live,
    make_tables,
    other_protocol,
    result,
    runs,
    track,
    write,
)

from cpmlho.study import protocol as config
from cpmlho.study import tracking
from cpmlho.study.made import SUMS
from cpmlho.study.results import HYPERPARAMETERS, RESULT, TRIALS, ResultError, run_dir
from cpmlho.study.strict import ConfigError
from cpmlho.study.tracking import entry, place

# A store that cannot be used: each function makes one and yields its address


@contextmanager
def nothing_can_be_written(path: Path) -> Iterator[str]:
    """A file that SQLite itself takes as read-only, since permissions do not bind root: it is of a later format."""
    content = bytearray(path.read_bytes())
    content[18] = 3  # the version of the format that a writer must know
    path.write_bytes(content)
    yield f"sqlite:///{path}"


@contextmanager
def not_a_database(path: Path) -> Iterator[str]:
    path.write_bytes(b"no database " * 1000)
    yield f"sqlite:///{path}"


@contextmanager
def a_folder(path: Path) -> Iterator[str]:
    path.unlink()
    path.mkdir()
    yield f"sqlite:///{path}"


@contextmanager
def locked_for_ever(path: Path) -> Iterator[str]:
    with FileLock(f"{path}.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry, "LOCK_SECONDS", 0.3)
        yield f"sqlite:///{path}"


@contextmanager
def changed_by(path: Path, statement: str) -> Iterator[str]:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    yield f"sqlite:///{path}"


@contextmanager
def deleted_experiment(path: Path) -> Iterator[str]:
    client = MlflowClient(f"sqlite:///{path}")
    client.delete_experiment(client.create_experiment("cpmlho/./mnist"))
    yield f"sqlite:///{path}"


@contextmanager
def nobody_listens(_: Path) -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


class Gate(http.server.BaseHTTPRequestHandler):
    """Answers every request in one way."""

    status, page = 200, ""

    def answer(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.page)))
        self.end_headers()
        self.wfile.write(self.page.encode())

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *_: object) -> None: ...


@contextmanager
def gate(_: Path, status: int, page: str = "<!DOCTYPE html><html><body>Please log in</body></html>") -> Iterator[str]:
    handler = type("Handler", (Gate,), {"status": status, "page": page})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


FULL = "CREATE TRIGGER full BEFORE INSERT ON metrics BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
BROKEN: dict[str, tuple[Callable[[Path], AbstractContextManager[str]], str]] = {
    "nothing can be written": (nothing_can_be_written, "readonly database"),
    "not a database": (not_a_database, "not a database"),
    "a folder": (a_folder, "unable to open"),
    "locked for ever": (locked_for_ever, r"mlflow\.db\.lock"),
    "takes no metric": (partial(changed_by, statement=FULL), "disk is full"),
    "of another version": (
        partial(changed_by, statement="UPDATE alembic_version SET version_num = '84291f40a231'"),
        "mlflow db upgrade sqlite:///",
    ),
    "deleted experiment": (deleted_experiment, "mlflow experiments restore --experiment-id 1"),
    "nobody listens": (nobody_listens, "refused"),
    "login page": (partial(gate, status=200), r"the address answered HTML: a proxy or a login page\?$"),
    "forbidden": (partial(gate, status=403), r"the address answered HTML \(status 403\): a proxy or a login page\?$"),
    "overloaded": (partial(gate, status=503), r"status 503 at every try: a proxy, or an overloaded server\?$"),
    "no such route": (partial(gate, status=404, page='{"error": "no such route"}'), ""),
    "not JSON": (partial(gate, status=200, page="OK"), ""),
    "other JSON": (partial(gate, status=200, page="[]"), ""),
}


def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(("broken", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_store_that_cannot_be_used_costs_one_line(
    broken: Callable[[Path], AbstractContextManager[str]],
    reason: str,
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """While a run trains, and when `track` finds it."""
    without_proxies(monkeypatch)
    monkeypatch.setenv(entry.RETRIES, "0")
    lines: list[str] = []
    with broken(tmp_path / "mlflow.db") as store:
        log_live(store, tmp_path, result(), say=lines.append)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
        done, said = track(tmp_path)
    (line,), (_, again) = lines, said
    assert not done
    for each in (line, again):
        assert each.startswith(f"MLflow at {store} fails, tracking stops here, results are not affected: ")
        assert re.search(reason, each)
        assert "\n" not in each
        assert "log in" not in each
    assert capfd.readouterr() == ("", "")
    if "disk" in reason:
        assert [run.info.status for run in live(uri)] == ["FAILED"]


def test_the_remedy_for_a_deleted_experiment_works(uri: str, tmp_path: Path) -> None:
    log_live(uri, tmp_path, result())
    client = MlflowClient(uri)
    number = client.get_experiment_by_name("cpmlho/./mnist").experiment_id
    client.delete_experiment(number)
    done, lines = track(tmp_path)
    assert not done
    assert f"MLFLOW_TRACKING_URI={uri}" in lines[-1]
    client.restore_experiment(number)
    assert track(tmp_path)[0]


@pytest.mark.parametrize("verb", ["track", "summary"])
def test_the_verbs_have_a_status_and_show_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpmlho: Callable[..., tuple[int, str]], verb: str
) -> None:
    make_tables(tmp_path)
    write(tmp_path, result())
    (tmp_path / "over.yaml").write_text(f"results_dir: {tmp_path}\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:s3cret@127.0.0.1:9")
    monkeypatch.setenv(entry.RETRIES, "0")
    status, said = cpmlho(verb, "--config", ROOT / "config.yaml", "--config", tmp_path / "over.yaml")
    assert status == 1
    assert "Connection refused" in said
    assert "s3cret" not in said


@pytest.mark.parametrize(
    ("address", "public", "secret"),
    [
        ("http://user:s3cret@host:80/place", "http://host:80/place", "s3cret"),
        ("http://user:s3/c?r@et@host:80/place?x=1", "http://host:80/place", "s3/c?r@et"),
        ("https://t0ken@host", "https://host", "t0ken@"),
        ("postgresql://host/runs?user=u&password=s3cret", "postgresql://host/runs", "s3cret"),
        ("mysql+pymysql://u:s3%40cret@host/runs", "mysql+pymysql://host/runs", "s3@cret"),
        ("sqlite:////home/u@corp/mlflow.db", "sqlite:////home/u@corp/mlflow.db", None),  # no password
    ],
)
def test_secrets_are_in_no_message(address: str, public: str, secret: str | None) -> None:
    assert place.shown(address) == public
    said = place.one_line(f"API request to {address}/api failed: '{address}' and '{secret}' are wrong", address)
    assert public in said
    assert secret is None or secret not in said


def test_a_long_error_keeps_its_remedy_and_leaves_out_the_statement() -> None:
    text = place.one_line("what is wrong " * 500 + "now run this\n[SQL: INSERT ...]", "sqlite:///x.db")
    assert text.startswith("what is wrong")
    assert text.endswith("now run this")
    assert len(text) < 2100


EXEMPT = " ({}_proxy is set and applies to localhost; NO_PROXY=localhost exempts it)"


@pytest.mark.parametrize(
    ("variables", "hint"),
    [
        ({}, ""),
        ({"http_proxy": "http://proxy"}, EXEMPT.format("http")),
        ({"all_proxy": "http://proxy"}, EXEMPT.format("all")),
        ({"http_proxy": "http://proxy", "NO_PROXY": "localhost"}, ""),
    ],
)
def test_a_proxy_that_applies_to_the_server_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], hint: str
) -> None:
    without_proxies(monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert place.one_line("refused", "http://localhost:9") == f"refused{hint}"
    assert place.one_line("refused", "sqlite:///x.db") == "refused"


@pytest.mark.parametrize("missing", ["name", "home"])
def test_a_containers_user_without_a_name_or_a_home_is_tracked(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def nobody(number: int) -> None:
        raise KeyError(number)

    for name in ("USER", "LOGNAME", "LNAME", "USERNAME", *(["HOME"] if missing == "home" else [])):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    log_live(uri, tmp_path, result())
    assert [run.info.status for run in live(uri)] == ["FINISHED"]


def test_all_is_logged_at_the_end_also_where_mlflow_is_told_to_log_later(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_live(uri, tmp_path, result())
    before = content(uri)
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    log_live(uri, tmp_path, result())
    assert content(uri) == before


# Paths


@pytest.mark.parametrize("name", ['it\'s "here" 100%25 #1 ünïcode\\', "with ? and;semicolon"])
def test_runs_are_logged_whatever_the_checkout_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    root = tmp_path / name
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setenv("TMPDIR", str(root))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri, lines = tracking.tracking_uri(None, root), list[str]()
    log_live(uri, root / "results", result(), say=lines.append)
    if "?" in name:  # no address of MLflow's can say it
        assert len(lines) == 1
        assert "must not contain ?" in lines[0]
        return
    assert lines == []
    (run,) = live(uri)
    assert artifacts(uri, run)[RESULT] == (run_dir(root / "results", result().key) / RESULT).read_bytes()
    assert Path(root, "mlruns", "cpmlho", run.info.run_id).is_dir()


def test_a_moved_checkout_keeps_its_artifacts(uri: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "über there"
    here.mkdir()
    shutil.copy(tmp_path / "mlflow.db", here)
    log_live(tracking.tracking_uri(None, here), here, result())
    here.rename(there)
    done, lines = track(there)
    assert done, lines
    moved = tracking.tracking_uri(None, there)
    assert len(runs(moved, view=3)) == 1, "what was there was logged again"
    assert json.loads(artifacts(moved, live(moved)[0])[RESULT])["status"] == "done"
    log_live(moved, there, result(seed=1))
    assert not here.exists(), "the old place was made again"


def test_another_projects_experiments_stay_where_they_are(uri: str, tmp_path: Path) -> None:
    client = MlflowClient(uri)
    ours = client.create_experiment("cpmlho/own", "s3://bucket/own")
    other = client.create_experiment("other", "file:///elsewhere/mlruns/cpmlho")
    entry.Store(uri, tmp_path)
    assert client.get_experiment(ours).artifact_location == "s3://bucket/own"
    assert client.get_experiment(other).artifact_location.endswith("/elsewhere/mlruns/cpmlho")


# The same run in two results folders


def test_the_same_run_in_two_results_folders_has_two_entries(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("results")
    for folder in ("results", "results/quick"):
        log_live(uri, tmp_path / folder, result())
    for folder in (tmp_path / "results", Path("results"), Path("link")):  # the same folder by other names
        log_live(uri, folder, result())
    names = {each.experiment_id: each.name for each in MlflowClient(uri).search_experiments()}
    assert sorted(names[run.info.experiment_id] for run in live(uri)) == [
        "cpmlho/results/mnist",
        "cpmlho/results/quick/mnist",
    ]


def test_two_checkouts_on_one_server_have_two_entries(tmp_path: Path) -> None:
    """Also a run that goes to another folder than the configured one."""
    own, shared = f"sqlite:///{tmp_path}/a/mlflow.db", "http://team"
    assert place.folder_name(tmp_path / "a" / "results", own) == "results"
    assert place.folder_name(tmp_path / "b" / "results", own) == f"{tmp_path}/b/results"
    names = {place.folder_name(tmp_path / name / "results", shared) for name in ("a", "b")}
    assert names == {f"{tmp_path}/a/results", f"{tmp_path}/b/results"}


# Files that are damaged, missing or changed


WRONG: dict[str, tuple[str, str, Callable[[str], str]]] = {  # what any reader refuses is in test_results.py
    "result cut short": ("cpmlho", RESULT, lambda text: text[:200]),
    "no time": ("cpmlho", RESULT, lambda text: text.replace('"2026-01-02T03:05:45+00:00"', '"yesterday"')),
    "another hyperparameter": ("cpmlho", HYPERPARAMETERS, lambda text: text.replace("dropout0", "drop`out0")),
    "a trial is missing": ("random_search", TRIALS, lambda text: "\n".join(text.split("\n")[:2]) + "\n"),
}


@pytest.mark.parametrize(("method", "name", "change"), WRONG.values(), ids=WRONG)
def test_a_damaged_file_is_one_line_and_the_other_runs_are_logged(
    uri: str, tmp_path: Path, method: str, name: str, change: Callable[[str], str]
) -> None:
    write(tmp_path, result(seed=1))
    path = write(tmp_path, result(method)) / name
    path.write_text(change(whole := path.read_text()))
    assert path.read_text() != whole
    done, lines = track(tmp_path)
    assert not done
    [line] = [line for line in lines if line.startswith(f"{path.parent}/")]
    assert name in line
    assert "\n" not in line
    assert [run.info.run_name for run in runs(uri)] == ["cpmlho seed1"]


TABLE_DAMAGES: dict[str, Callable[[Path], object]] = {
    "an edited table": lambda folder: (folder / "table2.csv").write_text("edited"),
    "a missing table": lambda folder: (folder / "table2.csv").unlink(),
    "no record": lambda folder: (folder / SUMS).unlink(),
    "an empty record": lambda folder: (folder / SUMS).write_bytes(b""),
    "a record cut short": lambda folder: (folder / SUMS).write_bytes((folder / SUMS).read_bytes()[:70]),
    "a record that is no text": lambda folder: (folder / SUMS).write_bytes(b"\xff\0"),
}


def test_damaged_tables_or_checksums_are_one_line_and_the_summary_stays(uri: str, tmp_path: Path) -> None:
    write(tmp_path, result())
    make_tables(tmp_path)
    assert track(tmp_path)[0]
    (before,) = live(uri, "summary")
    for name, damage in TABLE_DAMAGES.items():
        make_tables(tmp_path)
        damage(tmp_path / "tables")
        with pytest.raises(ResultError, match=r"tables: .*; make the tables .*: .*python -m cpmlho tables"):
            pytest.fail(f"{name}: {tracking.log_summary(other_protocol(tmp_path), tmp_path, pytest.fail)}")
    done, lines = track(tmp_path)
    assert not done
    assert [line for line in lines if line.startswith(f"{tmp_path}/tables: ")]
    assert re.findall(r"\d+", lines[-1]) == ["0", "1"], "the run is there, and was not logged again"
    assert [run.info.run_id for run in runs(uri, "summary")] == [before.info.run_id]


def test_a_finished_summary_is_not_replaced_by_one_that_fails_or_is_empty(uri: str, tmp_path: Path) -> None:
    protocol, lines = other_protocol(tmp_path), list[str]()
    make_tables(tmp_path)
    assert tracking.log_summary(protocol, tmp_path, pytest.fail)
    (before,) = live(uri, "summary")
    shutil.rmtree(tmp_path / "mlruns")
    (tmp_path / "mlruns").write_text("a file where a folder must be")
    make_tables(tmp_path, "changed")
    assert not tracking.log_summary(protocol, tmp_path, lines.append)
    assert len(lines) == 1
    for name in ("tables", "figures"):
        shutil.rmtree(tmp_path / name)
    assert not tracking.log_summary(protocol, tmp_path, lines.append)
    assert "make them first" in lines[-1]
    assert [run.info.run_id for run in live(uri, "summary")] == [before.info.run_id]


def test_an_interrupted_summary_is_closed_and_the_next_one_is_whole(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise SystemExit(143)

    make_tables(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(entry.Entry, "attach", interrupted)
        with pytest.raises(SystemExit):
            tracking.log_summary(other_protocol(tmp_path), tmp_path, pytest.fail)
    assert [run.info.status for run in runs(uri, "summary")] == ["KILLED"]
    entry.Entry(entry.Store(uri, tmp_path), "summary", "summary", "summary", {}, 0)  # killed: nobody closes it
    assert tracking.log_summary(other_protocol(tmp_path), tmp_path, pytest.fail)
    (after,) = runs(uri, "summary")
    assert (after.info.status, artifacts(uri, after).keys()) == ("FINISHED", MADE)


def test_a_result_that_is_gone_when_it_is_to_be_logged_is_one_line(uri: str, tmp_path: Path) -> None:
    lines: list[str] = []
    messages = [("started", result().spec.model_dump(mode="json"), {}), ("finished", str(tmp_path / "gone"))]
    tracking.follow(uri, tmp_path, messages, lines.append)
    (run,) = live(uri)
    assert run.info.status == "FAILED"
    assert run.data.tags["reason"].startswith(f"{tmp_path}/gone/{RESULT}: cannot be read: ")
    assert len(lines) == 1


# What MLflow lacks


def test_it_is_known_how_many_runs_are_missing(uri: str, tmp_path: Path) -> None:
    protocol = other_protocol(tmp_path)
    assert tracking.untracked(protocol, tmp_path) == ""
    log_live(uri, tmp_path, result(), ("failed", "MLflow failed"))  # the run itself did not
    for outcome in (result(), result("random_search"), result("random_search", 1)):
        write(tmp_path, outcome)
    log_live(uri, tmp_path, result("random_search", 1))
    assert tracking.untracked(protocol, tmp_path) == "2 of 3 finished runs are missing in MLflow"
    assert track(tmp_path)[0]
    assert tracking.untracked(protocol, tmp_path) == ""
    MlflowClient(uri).delete_run(live(uri)[0].info.run_id)
    write(tmp_path, result("random_search", 1, total_seconds=7.0))  # made again, and MLflow has the earlier one
    assert tracking.untracked(protocol, tmp_path) == "2 of 3 finished runs are missing in MLflow"
    (tmp_path / "mlflow.db").write_text("not a database " * 1000)
    lost = config.load(
        [ROOT / "config.yaml"], {"results_dir": str(tmp_path), "tracking": {"uri": "sqlite:////dev/null/x"}}
    )
    assert tracking.untracked(lost, tmp_path).startswith("MLflow at sqlite:////dev/null/x cannot be read: ")


def test_no_run_found_is_no_success(uri: str, tmp_path: Path) -> None:
    assert track(tmp_path) == (False, [f"0 of 4 runs found in {tmp_path}/"])


# The port of the page


def test_a_port_that_cannot_be_used_is_one_line_and_without_a_wish_the_next_free_one_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_PORT", raising=False)
    first = tracking._free(None)
    with socket.create_server(("127.0.0.1", first)):
        assert tracking._free(None) > first
        with pytest.raises(ConfigError, match=f"^port {first} is taken; choose another one: .* ui --port "):
            tracking._free(first)
        for text in (str(first), "http", "0", "65536", "-1"):
            monkeypatch.setenv("MLFLOW_PORT", text)
            wrong = "MLFLOW_PORT: must be a whole number from 1 to 65535, got '{}'"
            with pytest.raises(ConfigError, match="^port .* taken" if text == str(first) else wrong.format(text)):
                tracking._free(None)
