"""Files that are written whole or not at all, and locks on folders."""

import errno
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from cpmlho.study.files import at_work, locked, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_text(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_text(path, "new")
    assert error.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_held_where_only_what_is_open_for_writing_can_be(tmp_path, monkeypatch):
    lock = fcntl.flock

    def on_nfs(file, operation):
        if operation & fcntl.LOCK_EX and fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", on_nfs)
    with locked(tmp_path, pytest.fail):
        assert at_work(tmp_path)
        with pytest.raises(LookupError), locked(tmp_path, busy):
            pytest.fail("locked twice")
    assert not at_work(tmp_path)


def busy():
    raise LookupError


def test_what_killed_processes_left_goes_with_the_next_write(tmp_path):
    left, earlier = tmp_path / ".a.txt.0123cdef", tmp_path / ".a.txt.4711"  # as earlier versions named it
    at_work, others = tmp_path / ".a.txt.89abcdef", tmp_path / ".a.txt.bak"
    for path in (left, earlier, at_work, others):
        path.write_text("half")
    with at_work.open() as file:  # another process, maybe in another container
        fcntl.flock(file, fcntl.LOCK_EX)
        write_text(tmp_path / "a.txt", "whole")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a.txt", at_work, others])


def test_many_that_write_one_file_take_no_others_for_left_behind(tmp_path):
    """As containers do on a shared folder, whose processes have the same numbers."""
    path, texts = tmp_path / "a.txt", ["a" * 9999, "b" * 9999]
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(write_text, path, texts[i % 2]) for i in range(200)]
        for job in jobs:
            job.result()
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]
