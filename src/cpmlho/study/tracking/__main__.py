"""The other end of `TrackerProcess`: reads messages from standard input and logs what they say."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cpmlho.study.plugins import load_plugins
from cpmlho.study.results import RESULT, ResultError, read_result
from cpmlho.study.spec import RunSpec
from cpmlho.study.tracking.place import TRACKING_URI
from cpmlho.study.tracking.tracker import Tracker


def messages() -> Iterator[list[Any]]:
    """Messages up to the end of the input; read at once, so that the run never waits for a full pipe."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    while (line := lines.get()).endswith("\n"):  # the last one may be cut off
        yield json.loads(line)


def follow(tracker: Tracker) -> None:
    """Log one run; one that ends without a farewell was killed."""
    for name, *content in messages():
        if name == "started":
            tracker.started(RunSpec.model_validate(content[0]), content[1])
        elif name == "evaluated":
            tracker.evaluated(content[0])
        elif name == "finished":
            folder = Path(content[0])
            try:
                tracker.finished(read_result(folder / RESULT), folder)
            except ResultError as error:  # the run waits no longer, and its files are gone already
                tracker.failed(str(error))
        elif name == "failed":
            tracker.failed(content[0])
    tracker.killed()


if __name__ == "__main__":
    load_plugins(sys.argv[1:])
    follow(Tracker(os.environ[TRACKING_URI], lambda line: print(line, file=sys.stderr, flush=True)))
