"""What happens to jobs on a cluster: they are killed, cancelled, out of time, and their node goes down."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from tests.cluster.services import wait_for
from tests.cluster.slurm import command, fail_node, running_jobs

PATIENCE = 300.0  # seconds, for a job to come that can be attacked


class Attacks:
    """Attacks on the runs of a workflow; each hits runs that none has hit before, as a job is tried three times.

    Args:
        folder: the workflow's working directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hit: set[str] = set()
        self.log: list[str] = []

    def kill(self) -> None:
        """SIGKILL to a run's process while it trains."""
        name, process, _ = self._next()
        process.kill()
        self._note("killed", name)

    def cancel(self) -> None:
        """`scancel` of a run's job."""
        name, _, job = self._next()
        command("scancel", job)
        self._note("cancelled", name)

    def freeze(self) -> None:
        """Stop a run's process, so that its job, with a minute left, runs into its time limit."""
        name, process, job = self._next()
        process.send_signal(signal.SIGSTOP)
        command("scontrol", "update", f"JobId={job}", "TimeLimit=1")
        self._note("out of time", name)

    def fail_node(self, seconds: float = 3) -> None:
        """Take the node down with all that runs on it, and back up a little later."""
        names = [name for name, _, _ in self._runs()] or [self._next()[0]]
        fail_node(seconds)
        for name in names:
            self._note("node down", name)

    def _note(self, what: str, name: str) -> None:
        self._hit.add(name)
        self.log.append(what)
        print(f"  {name}: {what}", flush=True)

    def _next(self) -> tuple[str, psutil.Process, str]:
        """A run that has not been hit: its name, process and job."""
        found: list[tuple[str, psutil.Process, str]] = []

        def look() -> bool:
            found.extend(run for run in self._runs() if run[0] not in self._hit)
            return bool(found)

        wait_for("a job to attack", look, PATIENCE)
        return found[0]

    def _runs(self) -> Iterator[tuple[str, psutil.Process, str]]:
        """The runs that train now."""
        jobs = {comment.split("_wildcards_")[-1]: job for job, comment in running_jobs().items()}
        for process in psutil.process_iter():
            try:
                arguments, folder = process.cmdline(), process.cwd()
            except psutil.Error:  # ended meanwhile, or not to be looked at
                continue
            if arguments[1:4] == ["-m", "cpmlho", "run"] and Path(folder) == self._folder:
                name = "_".join(arguments[4:7])
                if name in jobs:
                    yield name, process, jobs[name]


def one_after_the_other(attacks: list[Callable[[], None]], pause: float) -> None:
    """Each attack once, with time between to come back to work."""
    for attack in attacks:
        attack()
        time.sleep(pause)
