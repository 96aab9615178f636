"""MLflow from the files: what live logging missed, or lost, is written again."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from pathlib import Path

from cpmlho.study.files import LOCK
from cpmlho.study.protocol import Protocol
from cpmlho.study.results import RESULT, ResultError, read_result, read_rows, run_dir
from cpmlho.study.tracking.entry import TABLES, run_files
from cpmlho.study.tracking.place import page, tracking_uri
from cpmlho.study.tracking.tracker import Tracker

PROGRESS_SECONDS = 10.0  # between lines


def log_run(tracker: Tracker, folder: Path) -> bool:
    """Log a finished run from its files, unless its live entry is whole and was made from the same files.

    Returns:
        Whether it was logged anew.

    Raises:
        ResultError: a file is damaged; nothing was logged.
    """
    result = read_result(folder / RESULT)
    tables = {name: read_rows(path) for name, path in run_files(folder).items() if name in TABLES}
    if done := tracker.is_logged(result, folder, tables):
        return not done
    tracker.rebuilt(result, folder, tables)
    return True


def at_work(folder: Path) -> bool | None:
    """Whether a run is going on in its folder: it has it `locked`; None on a file system without locks."""
    try:
        with (folder / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def track(protocol: Protocol, root: Path, say: Callable[[str], None]) -> bool:
    """Make MLflow show every finished run of the protocol, and the summary, as the files have them.

    A second time changes nothing. An entry that is open although nothing is at work on its run, as a power cut leaves
    it, is closed as killed.

    Returns:
        Whether there were runs, and MLflow now has each.
    """
    tracker = Tracker(tracking_uri(protocol.tracking.uri, root), say)
    folders = {key: run_dir(root / protocol.results_dir, key) for key in protocol.keys()}  # noqa: SIM118  (no mapping)
    found = [key for key, folder in folders.items() if (folder / RESULT).exists()]
    say(f"{len(found)} of {len(folders)} runs found in {protocol.results_dir}/")
    anew, damaged, said = 0, 0, time.monotonic()
    for key, folder in folders.items():
        busy = at_work(folder)
        if busy is False:
            tracker.abandoned(key)
        if key not in found or busy:
            continue
        try:
            anew += log_run(tracker, folder)
        except ResultError as error:
            damaged += 1
            say(str(error))
        if tracker.broken:
            return False
        if time.monotonic() - said > PROGRESS_SECONDS:
            said = time.monotonic()
            say(f"{found.index(key) + 1} of {len(found)} runs are done")
    summary = "with" if tracker.summarised(root / protocol.results_dir) else "without"
    if found and not tracker.broken:
        say(f"{anew} runs logged, {len(found) - anew - damaged} were there, {summary} tables and figures")
        say(f"MLflow's page on them: {tracker.link()}")
    return bool(found) and not damaged and not tracker.broken


def log_summary(protocol: Protocol, root: Path, say: Callable[[str], None]) -> bool:
    """Log the tables and figures as they are now; without any, the summary stays as it is.

    Returns:
        Whether MLflow now has them.
    """
    tracker = Tracker(tracking_uri(protocol.tracking.uri, root), say)
    if (done := tracker.summarised(root / protocol.results_dir)) is False:
        say(f"no tables, figures or report in {protocol.results_dir}/: make them first")
    return bool(done)


def ui_link(uri: str) -> str:
    """The address that opens MLflow's page at the runs of a store; the page's first one where the store is not there.

    The page of an SQLite store is that of `mlflow ui`, started in the project's folder.
    """
    return Tracker(uri, lambda line: None).link() or page(uri)
