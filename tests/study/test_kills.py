"""Verbs ended by SIGKILL at any moment: nothing half-written is taken for whole, and what is left goes next time."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

import pytest
from test_tracking import GRADIENT, MADE, PROCESSES, artifacts, live, make_tables, other_protocol, result, runs

from cpmlho.study import tracking
from cpmlho.study.archive import archived, pack, unpack
from cpmlho.study.arrays import DataError
from cpmlho.study.data import load as load_data
from cpmlho.study.files import LOCK
from cpmlho.study.protocol import Protocol, load
from cpmlho.study.provision import provide
from cpmlho.study.results import RESULT, ResultError, data_file, run_dir, write_run
from cpmlho.study.settings import IDX_FILES

ROOT = Path(__file__).parents[2]
SUBSET = ROOT / "tests" / "data" / "MNIST" / "raw"
WHOLE = {name: gzip.decompress((SUBSET / f"{name}.gz").read_bytes()) for name in IDX_FILES}
ALTERED = b"altered"
WRITES = ("fsync", "mkdir", "rename", "replace", "rmdir")  # the steps by which files and folders come and go


def killed(act: Callable[[], object], seconds: float) -> bool:
    """Act in a child process that is ended, wherever it is, after so many seconds of CPU time; whether it was."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, max(seconds, 1e-4))
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            act()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def tree(folder: Path) -> dict[str, bytes]:
    """All files that can be seen, by their place."""
    paths = (path for path in folder.rglob("[!.]*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def leftovers(folder: Path) -> list[str]:
    """The hidden files, apart from locks."""
    return [path.name for path in folder.rglob(".*") if path.name != LOCK]


@pytest.fixture
def small_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Protocol:
    """Small data to be fetched from a folder; what a killed fetch leaves among the temporary files lies there too."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    data = {"dir": str(tmp_path / "data"), "folder": str(SUBSET.parents[1])}
    changes = {"results_dir": str(tmp_path / "results"), "data": data}
    return load([ROOT / "config.yaml", ROOT / "tests" / "smoke.yaml"], changes)


def fetched(protocol: Protocol) -> list[str]:
    lines: list[str] = []
    provide(protocol, "mnist", lines.append)
    return lines


def check_what_is_there(protocol: Protocol, raw: Path) -> None:
    """Each file is absent, as it was, or whole; and no run takes an altered one."""
    found = tree(raw)
    assert all(content in (WHOLE[name], ALTERED) for name, content in found.items()), found.keys()
    record = data_file(protocol.results_dir, "mnist")
    assert not record.exists() or '"sha256"' in record.read_text()
    if found != WHOLE:
        with pytest.raises(DataError):
            load_data(protocol.datasets["mnist"], protocol.data.dir)


def check_the_next_fetch(protocol: Protocol, raw: Path) -> None:
    fetched(protocol)
    assert tree(raw) == WHOLE
    assert leftovers(raw.parent) == leftovers(Path(protocol.results_dir)) == []
    assert data_file(protocol.results_dir, "mnist").is_file()
    load_data(protocol.datasets["mnist"], protocol.data.dir)


def dies_writing(act: Callable[[], object], number: int) -> Callable[[], None]:
    """An act that is killed just before the one of these steps with this number."""

    def dies() -> None:
        left = number

        def counted(step: Callable[..., Any]) -> Callable[..., Any]:
            def counting(*arguments: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return step(*arguments, **named)

            return counting

        for name in WRITES:
            setattr(os, name, counted(getattr(os, name)))
        act()

    return dies


def test_a_fetch_killed_at_any_step_of_its_writing_leaves_nothing_for_ever(small_protocol: Protocol) -> None:
    """One of its files is there, altered."""
    raw, seen, number = Path(small_protocol.data.dir, "MNIST", "raw"), Counter[str](), 0
    while True:
        number += 1
        shutil.rmtree(raw.parents[1], ignore_errors=True)
        shutil.rmtree(small_protocol.results_dir, ignore_errors=True)
        raw.mkdir(parents=True)
        (raw / IDX_FILES[1]).write_bytes(ALTERED)
        if not killed(dies_writing(lambda: fetched(small_protocol), number), 60):
            break
        check_what_is_there(small_protocol, raw)
        seen["killed"] += 1
        seen["hidden file left"] += bool(leftovers(raw))
        check_the_next_fetch(small_protocol, raw)
    assert seen["killed"] >= 2 * len(IDX_FILES) + 2
    assert seen["hidden file left"] >= 2 * len(IDX_FILES)


# The archive of runs

Folder = Callable[[Path], object]


def quiet(line: str) -> None:
    pass


def packed(folder: Path) -> Path:
    """Three runs, and their archive."""
    for seed in range(3):
        run = result(seed=seed, started="2026-01-02T00:00:00+00:00", ended="2026-01-02T00:30:00+00:00")
        write_run(run_dir(folder, run.key), run, GRADIENT)
    pack(str(folder), quiet)
    return folder


def lose_a_run(folder: Path) -> None:
    shutil.rmtree(run_dir(folder, result(seed=2).key))


def lose_parts(folder: Path) -> None:
    """One run, and the result of another."""
    lose_a_run(folder)
    (run_dir(folder, result(seed=1).key) / RESULT).unlink()


def check_archive(folder: Path) -> None:
    """It is whole, or refused."""
    with suppress(ResultError):
        assert sum(1 for _ in archived(folder)) in (2, 3)


def check_runs(folder: Path) -> None:
    """A run with a result has all its tables."""
    for path in (folder / "runs").glob(f"*/*/*/{RESULT}"):
        assert {each.name for each in path.parent.iterdir()} == {RESULT, *GRADIENT}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "prepare", "check"),
    [
        (lambda folder: pack(str(folder), quiet), lose_a_run, check_archive),
        (lambda folder: unpack(str(folder), quiet), lose_parts, check_runs),
    ],
    ids=["pack", "unpack"],
)
def test_an_archive_killed_at_any_step_of_its_writing(
    act: Folder, prepare: Folder, check: Folder, tmp_path: Path
) -> None:
    start, whole, folder = packed(tmp_path / "start"), tmp_path / "whole" / "results", tmp_path / "results"
    prepare(start)
    shutil.copytree(start, whole)
    act(whole)
    kills = 0
    while True:
        shutil.copytree(start, folder)
        if not killed(dies_writing(lambda: act(folder), kills + 1), 60):
            break
        kills += 1
        check(folder)
        act(folder)
        assert tree(folder) == tree(whole)
        assert leftovers(folder) == []
        shutil.rmtree(folder)
    assert kills >= len(WRITES)


# The summary


def summarise(folder: Path, seconds: float, took: Any) -> None:
    """Log the summary, for so many seconds of CPU time at most."""
    began = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, seconds)
    tracking.log_summary(other_protocol(folder), folder, print)
    took.value = time.process_time() - began


@pytest.mark.slow
def test_a_summary_killed_at_any_moment_loses_nothing_and_the_next_one_is_whole(uri: str, tmp_path: Path) -> None:
    generator, took, kills = random.Random(10), PROCESSES.Value("d", 0.0), 0

    def summarised(seconds: float) -> bool:
        process = PROCESSES.Process(target=summarise, args=(tmp_path, seconds, took))
        process.start()
        process.join(120)
        return process.exitcode == 0

    make_tables(tmp_path)
    assert summarised(100.0)
    for number in range(3):
        make_tables(tmp_path, f"new {number}")
        kills += not summarised(generator.uniform(0, took.value))
        assert "FINISHED" in {run.info.status for run in live(uri, "summary")}, "the earlier one is lost"
        if number % 2:
            make_tables(tmp_path, f"new {number - 1}")  # as they are logged already
        assert tracking.log_summary(other_protocol(tmp_path), tmp_path, pytest.fail)
        (after,) = live(uri, "summary")
        assert after.info.status == "FINISHED"
        found = artifacts(uri, after)
        assert {name: (tmp_path / name).read_bytes() for name in MADE} == found
        assert {run.info.status for run in runs(uri, "summary")} <= {"FINISHED", "KILLED"}
    assert kills
