"""A run's tracker in a process of its own: MLflow's import, a slow store or a locked one cost the run no time.

The run writes one JSON message a line and never waits, except a while at its end. If it is killed, the pipe closes
without a farewell, and the tracker closes the run's entry as killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cpmlho.study.results import Observer, Row, RunResult
from cpmlho.study.spec import RunSpec
from cpmlho.study.tracking.place import TRACKING_URI

FAREWELL_SECONDS = 90.0  # longer than the store waits for a lock
INTERRUPTION_SECONDS = 5.0  # a person waits


def _ignore_signals() -> None:
    """Ctrl-C and SIGTERM are for the run, which tells the tracker how it ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class TrackerProcess(Observer):
    """Passes everything on to `python -m cpmlho.study.tracking`.

    Args:
        uri: the tracking store.
        say: takes one line of text.
        plugins: files that register what the run is of.
    """

    def __init__(self, uri: str, say: Callable[[str], None], plugins: Sequence[str] = ()) -> None:
        self._say = say
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cpmlho.study.tracking", *plugins],
            env=os.environ | {TRACKING_URI: uri},  # it may hold a password, and arguments are there for all to see
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_ignore_signals,  # noqa: PLW1509  (there are no threads yet)
        )

    def started(self, spec: RunSpec, tables: Mapping[str, Sequence[Row]]) -> None:
        """Pass on."""
        self._send("started", spec.model_dump(mode="json"), tables)

    def evaluated(self, tables: Mapping[str, Sequence[Row]], weights: object) -> None:
        """Pass the rows on; the network is in the run's folder at its end."""
        self._send("evaluated", tables)

    def finished(self, result: RunResult, folder: Path) -> None:
        """Pass on, and wait for the end."""
        self._send("finished", str(folder))
        self._close(FAREWELL_SECONDS)

    def failed(self, reason: str) -> None:
        """Pass on, and wait for the end."""
        self._send("failed", reason)
        self._close(INTERRUPTION_SECONDS)

    def _send(self, *message: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended and said why
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _close(self, seconds: float) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._say("MLflow takes too long, the run goes without; `python -m cpmlho track` logs what is missing")
