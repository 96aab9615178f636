"""MLflow from the files: what live logging missed, or lost, is written again."""

from __future__ import annotations

import csv
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cpmlho.study.protocol import Protocol
from cpmlho.study.results import RESULT, TRIALS, ResultError, read_result, read_rows, run_dir
from cpmlho.study.tracking.store import tracking_uri
from cpmlho.study.tracking.tracker import TABLES, Tracker, points, trial


def log_run(tracker: Tracker, folder: Path) -> None:
    """Log a finished run from its files, unless its live entry was made from the same result.json.

    Raises:
        ResultError: a file is damaged; nothing was logged.
    """
    result = read_result(folder / RESULT)
    tables = {name: _read(folder / name) for name in TABLES if (folder / name).exists()}
    if not tracker.is_logged(result.key, folder):
        tracker.started(result.spec, tables)
        tracker.finished(result, folder)


def at_work(folder: Path) -> bool:
    """Whether a run is going on in its folder: it holds it (`results.held`); on a file system without locks, maybe."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def rebuild(protocol: Protocol, root: Path, log: Callable[[str], None]) -> None:
    """Make MLflow show every finished run of the protocol, as its files have it; a second time changes nothing.

    An entry that is open although nothing is at work on its run, as a power cut leaves it, is closed as killed.
    """
    tracker = Tracker(tracking_uri(protocol.tracking.uri, root), log)
    for key in protocol.keys():  # noqa: SIM118  (no mapping)
        folder = run_dir(root / protocol.results_dir, key)
        if (folder / RESULT).exists():
            try:
                log_run(tracker, folder)
            except ResultError as error:
                log(str(error))
        elif not at_work(folder):
            tracker.abandoned(key)


def log_summary(protocol: Protocol, root: Path, log: Callable[[str], None]) -> None:
    """Log the tables and figures as they are now."""
    Tracker(tracking_uri(protocol.tracking.uri, root), log).summarised(root / protocol.results_dir)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        rows = read_rows(path)
        # A damaged file must not pass for a store that fails.
        points({path.name: rows})
        if path.name == TRIALS:
            [trial(row) for row in rows]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ResultError(f"{path}: damaged, remove the run's folder and run again: {error!r}") from None
    return rows
