"""What happens to jobs on a cluster: they are killed, cancelled, out of time, and their node goes down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from tests.cluster.services import wait_for
from tests.cluster.slurm import command, fail_node, running_jobs


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
        """SIGKILL to a run's process."""
        name, process, _ = self._next()
        process.kill()
        self._note("killed", name)

    def cancel(self) -> None:
        """`scancel` of a run's job."""
        name, process, job = self._next()
        command("scancel", job)
        with suppress(psutil.NoSuchProcess):
            process.resume()
        self._note("cancelled", name)

    def freeze(self) -> None:
        """Leave a run's process stopped, so that its job, which now has a minute in all, runs into its time limit."""
        name, _, job = self._next()
        command("scontrol", "update", f"JobId={job}", "TimeLimit=1")
        self._note("out of time", name)

    def fail_node(self) -> None:
        """Take the node down with all that runs on it, and back up; Slurm puts back the jobs."""
        _, process, _ = self._next()
        names = {name for name, _, _ in self._runs()}
        process.resume()
        fail_node()
        for name in sorted(names):
            self._note("node down", name)

    def _note(self, what: str, name: str) -> None:
        self._hit.add(name)
        self.log.append(what)
        print(f"  {name}: {what}", flush=True)

    def _next(self) -> tuple[str, psutil.Process, str]:
        """A run that has not been hit: its name, its process, stopped so that it cannot end meanwhile, and its job."""
        found: list[tuple[str, psutil.Process, str]] = []

        def look() -> bool:
            for name, process, job in self._runs():
                if name not in self._hit and stopped(process):
                    found.append((name, process, job))
                    break
            return bool(found)

        wait_for("a job to attack", look)
        return found[0]

    def _runs(self) -> Iterator[tuple[str, psutil.Process, str]]:
        """The runs that have begun and not ended."""
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


def stopped(process: psutil.Process) -> bool:
    """Whether a process could be stopped before it ended; the signal takes effect a little later."""
    ends = {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    try:
        process.suspend()
        wait_for("a process to stop", lambda: process.status() in ends)
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False
