"""What a workflow prints while it runs: the work to do, its progress, and what failed."""

from __future__ import annotations

import logging
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from snakemake.utils import available_cpu_count

from cpmlho.study.spec import RunKey
from cpmlho.study.workflow import Plan

MB_PER_RUN = 0.3  # its files and its entry in MLflow; the checkpoint of a finished run is removed
IDLE = "Nothing to be done"
STATUS = re.compile(r"CalledProcessError.* (?:exit status (\d+)|died with <Signals\.(\w+))", re.DOTALL)
ERROR = "cpmlho: error: "


def duration(seconds: float) -> str:
    """Return a time in words, rounded as an estimate should be."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 60:
        return f"about {minutes} min"
    hours, rest = divmod(round(minutes, -1), 60)
    return f"about {hours} h" + (f" {rest} min" if rest else "")


class Forecast:
    """Estimates the time left, assuming that a run takes the same time per unit of cost as the finished ones.

    Args:
        costs: expected cost of each run, in any unit.
        parallel: how many cores or GPUs run at the same time.
    """

    def __init__(self, costs: dict[RunKey, float], parallel: int) -> None:
        self.total = len(costs)
        self._open = dict(costs)
        self._parallel = parallel
        self._spent = self._expected = 0.0  # core-seconds and costs of the finished runs

    @property
    def done(self) -> int:
        """The number of finished runs."""
        return self.total - len(self._open)

    def end(self, key: RunKey, spent: float) -> None:
        """Record that a run is finished, and its core-seconds."""
        self._spent += spent
        self._expected += self._open.pop(key)

    def left(self, running: Mapping[RunKey, float]) -> float:
        """Return the seconds left, given the core-seconds of each running run; 0 before the first one is finished."""
        rate = self._spent / self._expected if self._expected else 0.0
        passed = sum(min(spent, rate * self._open[key]) for key, spent in running.items())
        return (rate * sum(self._open.values()) - passed) / self._parallel


class Overview(logging.Filter):
    """Reports the progress of the whole workflow in place of Snakemake's messages about single jobs and files.

    It is a filter of Snakemake's logger; other messages pass.

    Args:
        plan: what to run.
        idle: called if Snakemake finds nothing to do, in which case it calls no handler of the Snakefile.

    Attributes:
        failures: the jobs that failed, each with its log.
        stopped: whether the user has stopped the command; the end of its jobs is then not a failure.
    """

    def __init__(self, plan: Plan, idle: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._plan, self._idle = plan, idle
        self._forecast = Forecast({}, 1)
        self._jobs: dict[int, tuple[RunKey, float, int]] = {}  # running: key, start time, cores
        self._statuses: list[str] = []
        self._active = self._over = False
        self.failures: list[str] = []
        self.stopped = False

    def begin(self, keys: Sequence[RunKey]) -> None:
        """Announce the runs to train, and replace Snakemake's messages from now on."""
        self._active = True
        plan = self._plan
        epochs = {key: float(plan.epochs(key)) for key in keys}
        self._forecast = Forecast(epochs, len(plan.gpus) or min(plan.cores, available_cpu_count()))
        if keys:
            runs = "1 run" if len(keys) == 1 else f"{len(keys)} runs"
            done = len(plan.keys) - sum(key in plan.keys for key in keys)
            stale = sum(Path(plan.result(key)).exists() for key in keys)
            notes = [f"{done} are done"] * (done > 0)
            notes += [f"{stale} were made with other settings or an earlier version"] * (stale > 0)
            noted = f" ({', '.join(notes)})" if notes else ""
            disk = max(1, round(MB_PER_RUN * len(keys)))
            _say(
                f"{runs} to train{noted}, about {disk} MB of disk. The time left follows"
                " after the first run. You can stop it at any time: the same command continues from there."
            )

    def stop(self) -> None:
        """Record that the user stops the command."""
        self.stopped = True

    def end(self, *lines: str) -> None:
        """Print the last lines of the command, and hide what Snakemake adds."""
        self._over = True
        print("", *lines, sep="\n", flush=True)

    def filter(self, record: logging.LogRecord) -> bool:
        """Process a message of Snakemake; return whether it is shown too."""
        event, message = str(getattr(record, "event", None) or ""), str(record.msg)
        if not self._active and message.startswith(IDLE):
            _say(message)
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
        elif "CalledProcessError in" in message:
            self._statuses.append(message)
        elif event in ("", "error") and record.levelno > logging.INFO:
            return not (self.stopped or "a job execution failed" in message)
        return False

    def _job_begins(self, job: Any) -> None:
        if job.rule_name == "run":
            key = RunKey(*job.wildcards.values())._replace(seed=int(job.wildcards["seed"]))
            self._jobs[job.jobid] = (key, time.monotonic(), job.threads)
        elif job.rule_msg:
            _say(job.rule_msg)

    def _job_ends(self, job: Any) -> None:
        if job.job_id not in self._jobs:
            return
        now, forecast = time.monotonic(), self._forecast
        spent = {key: (now - began) * cores for key, began, cores in self._jobs.values()}
        key, *_ = self._jobs.pop(job.job_id)
        forecast.end(key, spent.pop(key))
        left = f", {duration(forecast.left(spent))} left" if forecast.done < forecast.total else ""
        _say(f"{forecast.done} of {forecast.total} runs{left}")

    def _job_fails(self, job: Any) -> None:
        key, *_ = self._jobs.pop(job.jobid, (None,))
        if self.stopped:
            return
        log = str(*job.log[:1])
        self.failures.append(f"{key or job.rule_name}: {log}")
        status = next((message for message in self._statuses if log in message), "")
        _say(f"Error: {key or job.rule_name}: {_reason(Path(log), status)}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _reason(log: Path, status: str) -> str:
    """Return why a job ended: the error in its log, else the signal or the exit status in Snakemake's message."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    if errors or "Traceback (most recent call last)" in text:
        return (errors or lines)[-1]
    found = STATUS.search(status)
    number = int(found[1] or 0) if found else 0
    name = found[2] if found else None
    if number > 128:
        with suppress(ValueError):
            name = signal.Signals(number - 128).name
    if name:
        return f"killed by {name}" + (", perhaps out of memory" if name == "SIGKILL" else "")
    return f"ended with exit status {number}" if found else "ended without an error message"
