"""MLflow as a view of the runs: written while they train, and rebuilt from their files. It never makes a run fail."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from cpmlho.study.files import at_work
from cpmlho.study.hints import command as hint
from cpmlho.study.made import all_intact
from cpmlho.study.plugins import load_plugins
from cpmlho.study.protocol import Protocol
from cpmlho.study.results import (
    HISTORY,
    RESULT,
    TRIALS,
    Observer,
    ResultError,
    Row,
    RunResult,
    damaged,
    own_tables,
    read_result,
    read_rows,
    run_dir,
)
from cpmlho.study.spec import RunKey, RunSpec
from cpmlho.study.strict import ConfigError
from cpmlho.study.tracking.entry import DIGEST, JOB_KEY, NOTE, Clock, Entry, RunEntry, Store, digest, now, run_files
from cpmlho.study.tracking.place import SERVER, TRACKING_URI, command, database, one_line, shown, tracking_uri

__all__ = ["TrackerProcess", "log_run", "log_summary", "serve", "track", "tracking_uri", "untracked"]

FAREWELL_SECONDS = 90.0  # at the end of a run; longer than the store waits for a lock
INTERRUPTION_SECONDS = 5.0  # at the end of a stopped run, because a person waits
PROGRESS_SECONDS = 10.0  # between lines of progress
Say = Callable[[str], None]


class TrackerProcess(Observer):
    """Logs a run while it trains, in another process, so that neither MLflow's import nor a slow store delays the run.

    The run sends one JSON message per line, and waits only at its end, for a limited time. If the run is killed, the
    pipe closes, and the other process marks the entry as killed.
    """

    def __init__(self, uri: str, results: Path, say: Say, plugins: Sequence[str] = ()) -> None:
        self._say = say
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()", str(results), *plugins],
            env=os.environ | {TRACKING_URI: uri},  # not an argument, because it may hold a password
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the run alone, which then sends how it ended
        )

    def started(self, spec: RunSpec, tables: Mapping[str, Sequence[Row]]) -> None:
        """Send the specification, and the rows of an interrupted attempt."""
        self._send("started", spec.model_dump(mode="json"), tables)

    def evaluated(self, tables: Mapping[str, Sequence[Row]], weights: object) -> None:
        """Send the new rows; the network is logged with the files."""
        self._send("evaluated", tables)

    def finished(self, result: RunResult, folder: Path) -> None:
        """Send the folder of the files, and wait until they are logged."""
        self._send("finished", str(folder))
        self._close(FAREWELL_SECONDS)

    def failed(self, reason: str) -> None:
        """Send the reason, and wait until it is logged."""
        self._send("failed", reason)
        self._close(INTERRUPTION_SECONDS)

    def _send(self, *message: Any) -> None:
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # the other process has ended, and has said why
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _close(self, seconds: float) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._say(f"MLflow takes too long, the run ends without it; log what is missing: {hint('track')}")


def main() -> None:
    """Log one run, from the messages that a `TrackerProcess` sends to standard input."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    results, *plugins = sys.argv[1:]
    load_plugins(plugins)
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def read() -> None:  # at once, so that the run never waits for a full pipe
        for line in sys.stdin:
            if line.endswith("\n"):  # a killed run may leave half a line
                messages.put(json.loads(line))
        messages.put(None)

    threading.Thread(target=read, daemon=True).start()
    received = iter(messages.get, None)
    follow(os.environ[TRACKING_URI], Path(results), received, lambda line: print(line, file=sys.stderr, flush=True))


def follow(uri: str, results: Path, messages: Iterable[Sequence[Any]], say: Say) -> None:
    """Log one run from its messages; without a last message, it was killed. A store that fails costs one line."""
    messages = iter(messages)
    name, *content = next(messages, ("failed",))
    if name != "started":  # it failed before it started, and says so itself
        return
    spec, rows = content
    try:
        with _optional(uri, say), RunEntry(Store(uri, results), RunSpec.model_validate(spec), now) as entry:
            entry.add(rows)
            for name, what in messages:
                if name == "evaluated":
                    entry.add(what)
                elif name == "finished":
                    entry.finish(read_result(Path(what) / RESULT), Path(what))
                else:
                    entry.end("FAILED", {"status": "failed", "reason": one_line(what, uri)}, now())
    except ResultError as error:
        say(str(error))


@contextmanager
def _optional(uri: str, say: Say) -> Iterator[None]:
    """Report an error of MLflow on one line, and continue after the block; errors in the run's files are raised."""
    try:
        yield
    except ResultError:
        raise
    except Exception as error:
        reason = one_line(error, uri)
        say(f"MLflow at {shown(uri)} fails, tracking stops here, results are not affected: {reason}")


def log_run(store: Store, folder: Path, known: Sequence[Any]) -> bool:
    """Log a finished run from its files, unless its only `known` entry is complete and made from the same files.

    Returns:
        Whether it was logged now.

    Raises:
        ResultError: a file is missing, damaged, or not of this run; nothing was logged.
    """
    result = read_result(folder / RESULT)
    tables = {path.name: read_rows(path) for path in own_tables(folder)}
    for name, rows in tables.items():
        tuned = result.hyperparameters.keys() if name in ("hyperparameters.csv", TRIALS) else set()
        if lost := sorted(tuned - rows[0].keys() if rows else {"rows"}):
            raise damaged(folder / name, f"no {', '.join(lost)}")
    trials = result.spec.trials or 0
    for name in (TRIALS, HISTORY) if trials else ():  # each trial is one evaluation
        if len(tables.get(name, ())) != trials:
            raise damaged(folder / name, f"not the {trials} trials of the run")
    at = _clock(result, folder)
    if len(known) == 1 and store.holds(result.key.dataset, known[0], run_files(folder), trials):
        return False
    with RunEntry(store, result.spec, at) as entry:
        entry.add(tables)
        entry.finish(result, folder)
    return True


def _clock(result: RunResult, folder: Path) -> Clock:
    """Return the function from a step to its time, between the run's start and end.

    If the result does not record its end, the time of its file replaces it.
    """
    try:
        ended = datetime.fromisoformat(result.ended).timestamp() if result.ended else (folder / RESULT).stat().st_mtime
        began = max(ended - result.total_seconds, 0.0)
        _ = datetime.fromtimestamp(began), datetime.fromtimestamp(ended)
    except (ValueError, OverflowError) as error:
        raise damaged(folder / RESULT, f"its end is not a time: {error}") from None
    return lambda step: int(1000 * (began + (ended - began) * min(step / max(result.steps, 1), 1.0)))


def track(protocol: Protocol, root: Path, say: Say) -> bool:
    """Make MLflow show every finished run of the protocol, and the summary, as in the files.

    A second call changes nothing. An entry that is open although no process works on its run, for example after a power
    cut, is marked as killed.

    Returns:
        Whether there were runs and MLflow now has all of them.
    """
    uri, results, folders = _places(protocol, root)
    found = [key for key, folder in folders.items() if (folder / RESULT).exists()]
    say(f"{len(found)} of {len(folders)} runs found in {protocol.results_dir}/")
    logged, refused, said = 0, 0, time.monotonic()
    with _optional(uri, say):
        store = Store(uri, results)
        known = _by_key(store, protocol)
        for key, folder in folders.items():
            entries = known.get(str(key), [])
            if (busy := at_work(folder)) is False:
                for entry in entries:
                    store.close(key.dataset, entry)
            if key not in found or busy:
                continue
            try:
                logged += log_run(store, folder, entries)
            except ResultError as error:
                refused += 1
                say(str(error))
            if time.monotonic() - said > PROGRESS_SECONDS:
                said = time.monotonic()
                say(f"{found.index(key) + 1} of {len(found)} runs checked")
        there, summary = len(found) - logged - refused, "without"
        try:
            summary = "with" if _summarise(store, results) else "without"
        except ResultError as error:
            refused += 1
            say(str(error))
        if found:
            say(f"{logged} runs logged, {there} already there, {summary} tables and figures")
        return bool(found) and not refused
    return False


def untracked(protocol: Protocol, root: Path) -> str:
    """Return a clause about how many of the protocol's finished runs MLflow lacks; empty if it lacks none."""
    uri, results, folders = _places(protocol, root)
    made = {digest(run_files(folder)) for folder in folders.values() if (folder / RESULT).exists()}
    try:
        known = [entry for entries in _by_key(Store(uri, results), protocol).values() for entry in entries]
    except Exception as error:
        return f"MLflow at {shown(uri)} cannot be read: {one_line(error, uri)}"
    lost = made - {entry.data.tags.get(DIGEST) for entry in known if entry.info.status == "FINISHED"}
    return f"{len(lost)} of {len(made)} finished runs are missing in MLflow" if lost else ""


def _places(protocol: Protocol, root: Path) -> tuple[str, Path, dict[RunKey, Path]]:
    """Return the store's address, the results folder, and the folder of each run of the protocol."""
    results = root / protocol.results_dir
    folders = {key: run_dir(results, key) for key in protocol.keys()}  # noqa: SIM118  (no mapping)
    return tracking_uri(protocol.tracking.uri, root), results, folders


def _by_key(store: Store, protocol: Protocol) -> dict[str, list[Any]]:
    """Return all entries of the protocol's datasets by key, with one query per dataset instead of one per run."""
    found: dict[str, list[Any]] = {}
    for dataset in protocol.run.every_dataset:
        for entry in store.entries(dataset):
            found.setdefault(entry.data.tags.get(JOB_KEY, ""), []).append(entry)
    return found


def log_summary(protocol: Protocol, root: Path, say: Say) -> bool:
    """Log the tables, the figures and the report; without any, the earlier summary stays.

    Returns:
        Whether MLflow now has them.

    Raises:
        ResultError: some are missing or damaged; nothing was logged.
    """
    uri, results, _ = _places(protocol, root)
    done = False
    with _optional(uri, say):
        done = _summarise(Store(uri, results), results)
        if not done:
            say(f"no tables, figures or report in {protocol.results_dir}/: make them first")
    return done


def _summarise(store: Store, results: Path) -> bool:
    all_intact(results)
    paths = [results / "report.html", *results.glob("tables/[!.]*"), *results.glob("figures/[!.]*")]
    files = {path.relative_to(results).as_posix(): path for path in sorted(paths) if path.is_file()}
    entries = store.of("summary", "summary")
    for entry in entries:  # a killed process may have left one open
        store.close("summary", entry)
    # A killed process may have left two finished ones; a new summary replaces both.
    if not files or (len(entries) == 1 and store.holds("summary", entries[0], files)):
        return bool(files)
    note = "Tables, figures and report over all runs, copied from the files."
    tags = {NOTE: note, "mlflow.source.name": "python -m cpmlho summary"}
    with Entry(store, "summary", "summary", "summary", tags, now()) as entry:
        entry.attach(files)
        entry.end("FINISHED", {"status": "done", DIGEST: digest(files)}, now())
    return True


def serve(protocol: Protocol, root: Path, port: int | None, say: Say) -> None:
    """Serve MLflow's page until Ctrl-C, and print its link as soon as it answers; of a server, only print the link.

    Raises:
        ConfigError: there are no runs yet, or the port is taken or invalid.
    """
    uri, results, groups = tracking_uri(protocol.tracking.uri, root), root / protocol.results_dir, protocol.run.datasets
    if uri.startswith(SERVER):
        try:
            return say(f"MLflow: {Store(uri, results).link(shown(uri).rstrip('/'), groups)}")
        except Exception as error:
            return say(f"MLflow: {shown(uri)}, which does not answer correctly: {one_line(error, uri)}")
    if (store := database(uri)) and not store.exists():
        raise ConfigError(f"{store}: there are no runs in MLflow yet; `make all` makes them, `make quick` small ones")
    host, number = os.environ.get("MLFLOW_HOST", "127.0.0.1"), _free(port)
    page = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{number}{os.environ.get('MLFLOW_STATIC_PREFIX', '')}"
    link = Store(uri, results).link(page, groups)
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | os.environ  # a dozen processes, not needed here
    environment["MLFLOW_BACKEND_STORE_URI"] = uri  # not an argument, because it may hold a password
    program = [command("mlflow"), "ui", "--host", host, "--port", str(number), "--workers", "1"]
    server = subprocess.Popen(program, env=environment)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        while server.poll() is None:
            with suppress(OSError), direct.open(f"{page}/health", timeout=5):
                say(f"MLflow: {link}\nCtrl-C ends it.")
                server.wait()
            time.sleep(0.2)
    finally:
        server.terminate()
        server.wait()


def _free(port: int | None) -> int:
    """Return the port that `--port` or $MLFLOW_PORT names, else the first free one from 5000."""
    text = os.environ.get("MLFLOW_PORT", "") if port is None else str(port)
    if text and not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**16):
        raise ConfigError(f"MLFLOW_PORT: must be a whole number from 1 to 65535, got {text!r}")
    for number in [int(text)] if text else range(5000, 5100):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind(("127.0.0.1", number))
            return number
    raise ConfigError(f"port {text or 5000} is taken; choose another one: {hint('ui', '--port', '8080')}")
