"""The command at work on the results: one at a time, with jobs of its own, and stopped with them.

It is imported before every command, so nothing here imports torch, pandas or mlflow.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

from cpmlho.study.files import locked, write_text

COMMAND = "CPMLHO_COMMAND"  # the variable that tells a job of a cluster which command it is of
HELD = ExitStack()  # until the process ends


def begin(results_dir: str | Path, environment: MutableMapping[str, str]) -> None:
    """Make this command, which holds the results, the one whose jobs may touch them."""
    environment[COMMAND] = uuid4().hex
    write_text(_newest(results_dir), environment[COMMAND])


def left_behind(results_dir: str | Path, environment: Mapping[str, str]) -> bool:
    """Whether a job is of a command that was killed, and another has begun since, which has jobs of its own.

    Snakemake begins a job by removing its outputs: left in the queue, such a job would take a finished run away.
    """
    newest = _newest(results_dir)
    return COMMAND in environment and newest.exists() and newest.read_text() != environment[COMMAND]


def _newest(results_dir: str | Path) -> Path:
    return Path(results_dir, "logs", "command")


def hold(results_dir: str, refuse: Callable[[str], None]) -> None:
    """Keep other workflows away from these results for as long as this process lives, however it ends."""
    busy = f"{results_dir}: another snakemake is at work on it; wait, or set another results_dir"
    HELD.enter_context(locked(Path(results_dir), lambda: refuse(busy)))


def stop(*_: object) -> NoReturn:
    """Do on SIGTERM what Ctrl-C does in a terminal; Snakemake's own handler would let the jobs train to their end.

    The jobs get SIGTERM too, as those that a script started in the background ignore SIGINT.
    """
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            child.send_signal(signal.SIGTERM)
    raise KeyboardInterrupt
