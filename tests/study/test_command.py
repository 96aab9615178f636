"""Stopping the jobs of a command, and file times of the future; the whole of it is tried in tests/workflow."""

import os
import signal
import subprocess
import time

import psutil
import pytest

from cpmlho.study import command
from cpmlho.study.command import past_times, stop_jobs, stop_on_signals


def test_a_job_that_has_ended_since_it_was_listed_does_not_keep_the_others_from_being_stopped(monkeypatch):
    jobs = [subprocess.Popen(["sleep", seconds]) for seconds in ("0", "600")]
    try:
        listed = [psutil.Process(job.pid) for job in jobs]
        assert jobs[0].wait() == 0
        monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: listed)
        stop_jobs()
        assert jobs[1].wait(timeout=60) == -signal.SIGTERM
    finally:
        jobs[1].kill()


@pytest.mark.parametrize("ignored", [(), (signal.SIGHUP,)])  # as under nohup
def test_ctrl_c_sigterm_and_the_end_of_the_terminal_stop_the_jobs_and_then_the_command(monkeypatch, ignored):
    handlers, done = {}, []
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(command, "stop_jobs", lambda: done.append("jobs"))
    stop_on_signals(lambda: done.append("said"))
    assert handlers.keys() == {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} - {*ignored}
    for handler in handlers.values():
        with pytest.raises(KeyboardInterrupt):
            handler()
    assert done == ["said", "jobs"] * len(handlers)


def test_files_of_the_future_get_the_present_time_and_others_keep_theirs(tmp_path):
    for name, seconds in (("past", 1.0), ("future", 4e9)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (seconds, seconds))
    (tmp_path / "link").symlink_to("gone")
    past_times(str(tmp_path))
    assert (tmp_path / "past").stat().st_mtime == 1.0
    assert (tmp_path / "future").stat().st_mtime <= time.time()
