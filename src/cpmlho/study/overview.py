"""What a person sees of a whole workflow while it goes: what is to come, how far it is, and what failed."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from snakemake.utils import available_cpu_count

from cpmlho.study.spec import RunKey
from cpmlho.study.workflow import Plan

MB_A_RUN = 0.3  # its files and its entry in MLflow; its checkpoint is removed when it is done
EPOCHS_WORTH_MEASURING = 50
IDLE = "Nothing to be done"
ENDING = re.compile("a job execution failed|CalledProcessError in")  # of a failure that is told better here


def duration(seconds: float) -> str:
    """A time in words, as exactly as it can be known beforehand."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 60:
        return f"about {minutes} min"
    hours, rest = divmod(round(minutes, -1), 60)
    return f"about {hours} h" + (f" {rest} min" if rest else "")


def measured(plan: Plan, keys: Collection[RunKey]) -> dict[RunKey, float]:
    """Seconds that each run takes on one core or GPU, by a few steps of each kind; nothing if they cannot be had."""
    kinds = dict.fromkeys(f"{key.dataset} {key.method}" for key in keys)
    command = [sys.executable, "-m", "cpmlho.study.harness.pace", plan.file]
    lines = "\n".join(kinds)
    try:
        said = subprocess.run(command, input=lines, capture_output=True, text=True, check=True, timeout=300)
        seconds = json.loads(said.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):  # the runs themselves will say what is wrong
        return {}
    return {key: seconds[f"{key.dataset}/{key.method}"] for key in keys}


class Forecast:
    """How long the rest takes, if it is to what was foreseen as the runs that are done were.

    Args:
        costs: of each run, in seconds or in any other unit.
        beside: how many go on side by side.
    """

    def __init__(self, costs: dict[RunKey, float], beside: int) -> None:
        self.total = len(costs)
        self._open = dict(costs)
        self._beside = beside
        self._running: dict[RunKey, tuple[float, int]] = {}  # when it began, and on how many cores
        self._spent = self._foreseen = 0.0

    @property
    def done(self) -> int:
        """How many runs are done."""
        return self.total - len(self._open)

    def begin(self, key: RunKey, now: float, cores: int) -> None:
        """A run begins."""
        self._running[key] = (now, cores)

    def end(self, key: RunKey, now: float) -> None:
        """A run is done."""
        began, cores = self._running.pop(key)
        self._spent += (now - began) * cores
        self._foreseen += self._open.pop(key)

    def drop(self, key: RunKey) -> None:
        """A run has failed."""
        self._running.pop(key, None)

    def left(self, now: float) -> float:
        """Seconds to go."""
        rate = self._spent / self._foreseen if self._foreseen else 0.0
        passed = (min((now - began) * cores, rate * self._open[key]) for key, (began, cores) in self._running.items())
        return (rate * sum(self._open.values()) - sum(passed)) / self._beside


class Overview(logging.Filter):
    """Says how far the workflow is in the place of Snakemake's own messages, which are of jobs and files.

    A filter of Snakemake's logger: it lets pass what it does not replace.

    Args:
        plan: the protocol's.
        say: prints a line.
        idle: called where Snakemake finds nothing to be done, of which it tells nobody else.
    """

    def __init__(self, plan: Plan, say: Callable[[str], None], idle: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._plan, self._say, self._idle = plan, say, idle
        self._forecast = Forecast({}, 1)
        self._jobs: dict[int, RunKey] = {}
        self._active = self._over = False
        self.failures: list[str] = []

    def begin(self, keys: Sequence[RunKey]) -> None:
        """Announce the runs that are to be made, and replace Snakemake's messages from now on."""
        self._active = True
        plan = self._plan
        epochs = {key: float(plan.epochs(key)) for key in keys}
        seconds = measured(plan, keys) if sum(epochs.values()) > EPOCHS_WORTH_MEASURING else {}
        self._forecast = Forecast(seconds or epochs, plan.cores)
        if keys:
            here = sum(key in plan.keys for key in keys)
            done = f" ({len(plan.keys) - here} are done)" if here < len(plan.keys) else ""
            runs = "1 run" if len(keys) == 1 else f"{len(keys)} runs"
            self._say(f"{runs} to train{done}, about {max(1, round(MB_A_RUN * len(keys)))} MB of disk.")
        if seconds:
            beside = len(plan.gpus) or min(plan.cores, available_cpu_count())
            time_left = max(sum(seconds.values()) / beside, *seconds.values())
            self._say(
                f"On this machine that takes {duration(time_left)}, by a few steps of each kind, {beside} at a time."
                " Stop it when you like: the same command goes on from there."
            )

    def end(self) -> None:
        """The last lines are the caller's: what Snakemake adds to them is not shown."""
        self._over = True

    def filter(self, record: logging.LogRecord) -> bool:
        """Take in what Snakemake tells; whether it is shown as well."""
        event = str(getattr(record, "event", None) or "")
        if not self._active and str(record.msg).startswith(IDLE):
            self._say(str(record.msg))
            self._idle()
            return False
        if not self._active or self._over:
            return not self._over
        if event == "job_info":
            self._job_begins(record)
        elif event == "job_finished":
            self._job_ends(record)
        elif event == "job_error":
            self._job_fails(record)
        return event in ("", "error") and record.levelno > logging.INFO and not ENDING.search(str(record.msg))

    def _job_begins(self, job: Any) -> None:
        if job.rule_name == "run":
            key = RunKey(job.wildcards["dataset"], job.wildcards["method"], int(job.wildcards["seed"]))
            self._jobs[job.jobid] = key
            self._forecast.begin(key, time.monotonic(), job.threads)
        elif job.rule_msg:
            self._say(job.rule_msg)

    def _job_ends(self, job: Any) -> None:
        if (key := self._jobs.pop(job.job_id, None)) is None:
            return
        now, forecast = time.monotonic(), self._forecast
        forecast.end(key, now)
        left = f", {duration(forecast.left(now))} left" if forecast.done < forecast.total else ""
        self._say(f"{forecast.done} of {forecast.total} runs{left}")

    def _job_fails(self, job: Any) -> None:
        key = self._jobs.pop(job.jobid, None)
        if key:
            self._forecast.drop(key)
        log = Path(*job.log[:1])
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "ended without a word")
        self.failures.append(f"{key or job.rule_name}: {last}\n  its log: {log}")
        self._say(f"Error: {self.failures[-1]}")
