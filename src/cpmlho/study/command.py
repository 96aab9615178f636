"""A command that works on the results: alone, with its own jobs, which stop when it does.

Every command reads it first, so nothing here imports torch, pandas or mlflow.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

from cpmlho.study.files import locked, write_text

COMMAND = "CPMLHO_COMMAND"  # the variable that tells a job on a cluster which command it belongs to
HELD = ExitStack()  # until the process ends


def refuse(message: object) -> NoReturn:
    """End the command with one line; an exception would be printed with its traceback."""
    print(f"Error: {message}", file=sys.stderr, flush=True)
    os._exit(2)


def hold(results_dir: str) -> None:
    """Refuse to start while another command works on these results; the lock ends with the process."""
    busy = f"{results_dir}: another snakemake is at work on it; wait, or set another results_dir"
    HELD.enter_context(locked(Path(results_dir), lambda: refuse(busy)))


def past_times(results_dir: str) -> None:
    """Give files that seem to be of the future the present time, as Snakemake refuses to make anything from them.

    They come from a machine whose clock is ahead, from an archive of another time zone, or a clock was set back.
    """
    now = time.time()
    for path in Path(results_dir).rglob("*"):
        with suppress(OSError):  # gone, or of another user
            if path.stat().st_mtime > now:
                os.utime(path, (now, now))


def begin(results_dir: str | Path, environment: MutableMapping[str, str]) -> None:
    """Make this command the one whose jobs may touch the results."""
    environment[COMMAND] = uuid4().hex
    write_text(_newest(results_dir), environment[COMMAND])


def left_behind(results_dir: str | Path, environment: Mapping[str, str]) -> bool:
    """Whether this job belongs to a command that was killed, and a later one has begun.

    Snakemake begins a job by removing its outputs, so a job that was left in a cluster's queue would remove a run that
    the later command has finished.
    """
    newest = _newest(results_dir)
    return COMMAND in environment and newest.exists() and newest.read_text() != environment[COMMAND]


def _newest(results_dir: str | Path) -> Path:
    return Path(results_dir, "logs", "command")


def stop_on_signals(stopping: Callable[[], None]) -> None:
    """Stop the jobs, and then this command, on Ctrl-C, SIGTERM and the end of the terminal.

    Snakemake itself would let the jobs train to their end on SIGTERM, and leave them behind when the terminal ends.

    Args:
        stopping: called first.
    """

    def stop(*_: object) -> NoReturn:
        stopping()
        stop_jobs()
        raise KeyboardInterrupt

    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signals.append(signal.SIGHUP)
    for number in signals:
        signal.signal(number, stop)


def stop_jobs() -> None:
    """Send SIGTERM to all processes that this one started, and theirs."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            child.send_signal(signal.SIGTERM)
