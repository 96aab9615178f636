"""Stopping the command at work on the results; the whole of it is tried in tests/workflow/test_faults.py."""

import signal
import subprocess

import psutil
import pytest

from cpmlho.study.command import stop


def test_a_job_that_ended_since_it_was_listed_does_not_keep_the_others_from_being_stopped(monkeypatch):
    jobs = [subprocess.Popen(["sleep", seconds]) for seconds in ("0", "600")]
    try:
        listed = [psutil.Process(job.pid) for job in jobs]
        assert jobs[0].wait() == 0
        monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: listed)
        with pytest.raises(KeyboardInterrupt):
            stop(signal.SIGTERM, None)
        assert jobs[1].wait(timeout=60) == -signal.SIGTERM
    finally:
        jobs[1].kill()
