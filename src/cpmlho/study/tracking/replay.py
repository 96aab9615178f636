"""MLflow from the files: what live logging missed, or lost, is written again."""

from __future__ import annotations

import fcntl
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cpmlho.study.files import LOCK
from cpmlho.study.made import all_intact
from cpmlho.study.protocol import Protocol
from cpmlho.study.results import (
    COLUMNS,
    HISTORY,
    HYPERPARAMETERS,
    RESULT,
    TRIALS,
    ResultError,
    RunResult,
    damaged,
    own_tables,
    read_result,
    read_rows,
    run_dir,
)
from cpmlho.study.tracking.entry import Tables, Times
from cpmlho.study.tracking.place import page, tracking_uri
from cpmlho.study.tracking.tracker import Tracker

PROGRESS_SECONDS = 10.0  # between lines


def log_run(tracker: Tracker, folder: Path) -> bool:
    """Log a finished run from its files, unless its live entry is whole and was made from the same files.

    Returns:
        Whether it was logged anew.

    Raises:
        ResultError: a file is missing, damaged, or not of this run; nothing was logged.
    """
    result = read_result(folder / RESULT)
    tables = {path.name: read_rows(path) for path in own_tables(folder)}
    _check(result, tables, folder)
    times = Times.past(result, tables, folder)
    if done := tracker.is_logged(result, folder, tables):
        return not done
    tracker.rebuilt(result, folder, tables, times)
    return True


def _check(result: RunResult, tables: Tables, folder: Path) -> None:
    """Check that a run's files are all there, and of one run, before the first of them is logged."""
    spec, tuned = result.spec, result.hyperparameters
    starts = [each.start for each in spec.data.hyperparameters.values()]
    moved = not all(map(partial(math.isclose, rel_tol=1e-6), tuned.values(), starts))  # they are kept in float32
    needed = {HISTORY: True, TRIALS: spec.trials is not None, HYPERPARAMETERS: spec.trials is None and moved}
    for name in (name for name, is_needed in needed.items() if is_needed):
        if not tables.get(name):
            raise damaged(folder / name, "it is not there, or has no rows")
    for name in (HYPERPARAMETERS, TRIALS):
        if other := (tables[name][0].keys() ^ (COLUMNS[name] | tuned.keys())) if tables.get(name) else set():
            raise damaged(folder / name, f"columns {', '.join(sorted(other))}, which are not of both it and {RESULT}")
    if (last := tables[HISTORY][-1]["step"]) != result.steps:
        raise damaged(folder / HISTORY, f"it ends at step {last}, and {RESULT} at {result.steps}")
    if spec.trials and (count := len(tables[TRIALS])) != spec.trials:
        raise damaged(folder / TRIALS, f"it has {count} trials of {spec.trials}")


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
    anew, refused, said = 0, 0, time.monotonic()
    for key, folder in folders.items():
        busy = at_work(folder)
        if busy is False:
            tracker.abandoned(key)
        if key not in found or busy:
            continue
        try:
            anew += log_run(tracker, folder)
        except ResultError as error:
            refused += 1
            say(str(error))
        if tracker.broken:
            return False
        if time.monotonic() - said > PROGRESS_SECONDS:
            said = time.monotonic()
            say(f"{found.index(key) + 1} of {len(found)} runs are done")
    try:
        summary = "with" if _summarised(tracker, root / protocol.results_dir) else "without"
    except ResultError as error:
        refused, summary = refused + 1, "without"
        say(str(error))
    if found and not tracker.broken:
        say(f"{anew} runs logged, {len(found) - anew - refused} were there, {summary} tables and figures")
        say(f"MLflow's page on them: {tracker.link()}")
    return bool(found) and not refused and not tracker.broken


def log_summary(protocol: Protocol, root: Path, say: Callable[[str], None]) -> bool:
    """Log the tables and figures as they are now; without any, the summary stays as it is.

    Returns:
        Whether MLflow now has them.

    Raises:
        ResultError: some are missing or damaged; nothing was logged.
    """
    tracker = Tracker(tracking_uri(protocol.tracking.uri, root), say)
    if (done := _summarised(tracker, root / protocol.results_dir)) is False:
        say(f"no tables, figures or report in {protocol.results_dir}/: make them first")
    return bool(done)


def _summarised(tracker: Tracker, results: Path) -> bool | None:
    all_intact(results)
    return tracker.summarised(results)


def ui_link(uri: str) -> str:
    """The address that opens MLflow's page at the runs of a store; the page's first one where the store is not there.

    The page of an SQLite store is that of `mlflow ui`, started in the project's folder.
    """
    return Tracker(uri, lambda line: None).link() or page(uri)
