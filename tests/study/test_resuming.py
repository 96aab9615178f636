"""Interrupted runs: they go on where they were, to the same bits, and from nothing that is not their own."""

import hashlib
import json
import os
import pickle
import time
from dataclasses import replace

import pytest
from test_methods import NAMES, RESPONSES
from test_methods import spec_of as whole_spec

from cpmlho.study.files import LOCK
from cpmlho.study.harness.checkpoint import CHECKPOINT
from cpmlho.study.harness.run import execute
from cpmlho.study.results import HISTORY, RESULT, Observer, read_result
from runs import content


class InterruptionError(Exception):
    """What ends a run early in these tests."""


class Interrupter(Observer):
    """Ends the run once so many evaluations have been seen; remembers what it was told at the start."""

    def __init__(self, after):
        self.left = after
        self.tables = None

    def started(self, spec, tables):
        self.tables = {name: list(rows) for name, rows in tables.items()}

    def evaluated(self, tables, weights):
        self.left -= 1
        if self.left == 0:
            raise InterruptionError


def spec_of(small, dataset, method):
    """Three evaluations: epochs, or trials of one epoch."""
    spec = whole_spec(small, dataset, method)
    searching = spec.trials is not None
    settings = replace(spec.settings, trials=3) if searching else spec.settings
    data = spec.data.model_copy(update={"epochs": 1 if searching else 3})
    return spec.model_copy(update={"data": data, "settings": settings})


def run(spec, folder, after=0, workers=1):
    """Run, and interrupt after so many evaluations; what was said and shown at the start."""
    lines, watcher = [], Interrupter(after)
    try:
        execute(spec, folder, [watcher], lines.append, 0.0, workers)
    except InterruptionError:
        assert not (folder / RESULT).exists()
    return lines, watcher


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """The files of runs that were never interrupted, made when first asked for."""
    made = {}

    def of(dataset, method):
        if (dataset, method) not in made:
            folder = tmp_path_factory.mktemp("whole")
            run(spec_of(small, dataset, method), folder)
            made[dataset, method] = content(folder)
        return made[dataset, method]

    return of


@pytest.mark.parametrize("dataset", ["mnist", pytest.param("fashionmnist", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", [*NAMES, *(pytest.param(each, marks=pytest.mark.slow) for each in RESPONSES)])
def test_an_interrupted_run_goes_on_to_the_same_bits(small, whole, tmp_path, dataset, method):
    spec = spec_of(small, dataset, method)
    for seen in range(3):
        lines, watcher = run(spec, tmp_path, after=1)
        assert lines == []
        assert len(watcher.tables.get(HISTORY, [])) == seen  # each attempt adds one evaluation
    run(spec, tmp_path)
    assert content(tmp_path) == whole(dataset, method)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([LOCK, *whole(dataset, method)[0], RESULT])


def test_a_diverged_run_is_not_trained_on(small, tmp_path):
    spec = spec_of(small, "mnist", "cpmlho")
    wild = spec.model_copy(update={"training": replace(spec.training, learning_rate=1e12)})
    run(wild, tmp_path, after=1)
    _, watcher = run(wild, tmp_path)
    assert len(watcher.tables[HISTORY]) == 1
    tables, result = content(tmp_path)
    assert (result["status"], len(tables[HISTORY])) == ("diverged", 1)


def test_a_checkpoint_that_cannot_be_replaced_leaves_the_one_before(small, whole, tmp_path, monkeypatch):
    spec = spec_of(small, "mnist", "cpmlho")
    run(spec, tmp_path, after=1)

    def full(descriptor):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            run(spec, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, LOCK}
    lines, watcher = run(spec, tmp_path)
    assert (lines, len(watcher.tables[HISTORY])) == ([], 1)
    assert content(tmp_path) == whole("mnist", "cpmlho")


def harmful(content):
    """A checkpoint of the right run that holds a pickle which would execute code."""

    class Harm:
        def __reduce__(self):
            return (pytest.fail, ("code of a checkpoint was executed",))

    payload = pickle.dumps(Harm(), protocol=2)
    header = json.loads(content.partition(b"\n")[0])
    return json.dumps({**header, "sha256": hashlib.sha256(payload).hexdigest()}).encode() + b"\n" + payload


DAMAGES = {
    "empty": lambda content: b"",
    "cut in the first line": lambda content: content[:100],
    "cut after the first line": lambda content: content.partition(b"\n")[0] + b"\n",
    "cut in the middle": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "one bit turned": lambda content: content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:],
    "no mapping": lambda content: b"[1]\n" + content.partition(b"\n")[2],
    "harmful": harmful,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_said_and_not_used(small, whole, tmp_path, damage):
    spec = spec_of(small, "mnist", "cpmlho")
    run(spec, tmp_path, after=1)
    path = tmp_path / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    (line,), watcher = run(spec, tmp_path)
    assert line.startswith(f"{path}: ignoring this checkpoint, restarting: it ")
    assert watcher.tables == {}
    assert content(tmp_path) == whole("mnist", "cpmlho")


@pytest.mark.parametrize("other", ["settings", "numerics", "plug-in files", "versions", "device or precision"])
def test_a_checkpoint_of_another_run_is_said_and_not_used(small, whole, tmp_path, other, monkeypatch):
    spec = spec_of(small, "mnist", "cpmlho")
    with monkeypatch.context() as patch:
        if other == "settings":
            run(spec.model_copy(update={"seed": 1}), tmp_path, after=1)
        else:
            name, found = {
                "numerics": ("NUMERICS", 0),
                "plug-in files": ("plugin_sha256", lambda *_: {"method": "another"}),
                "versions": ("versions", lambda: {"torch": "another"}),
                "device or precision": ("device_name", lambda _: "another"),
            }[other]
            patch.setattr(f"cpmlho.study.harness.run.{name}", found)
            run(spec, tmp_path, after=1)
    lines, _ = run(spec, tmp_path)
    assert lines == [f"{tmp_path / CHECKPOINT}: ignoring this checkpoint, restarting: it was made under other {other}"]
    assert content(tmp_path) == whole("mnist", "cpmlho")


def test_data_that_were_moved_let_a_run_go_on(small, whole, tmp_path):
    spec = spec_of(small, "mnist", "cpmlho")
    run(spec, tmp_path, after=1)
    moved = tmp_path.with_name(f"{tmp_path.name}_moved")
    moved.symlink_to(small.data.dir)
    lines, watcher = run(spec.model_copy(update={"data_dir": str(moved)}), tmp_path)
    assert (lines, len(watcher.tables[HISTORY])) == ([], 1)
    there = content(tmp_path)
    assert there[1]["spec"].pop("data_dir") != whole("mnist", "cpmlho")[1]["spec"]["data_dir"]


# Side by side


@pytest.mark.parametrize("dataset", ["mnist", pytest.param("fashionmnist", marks=pytest.mark.slow)])
@pytest.mark.parametrize("workers", [2, 3, 8])
def test_trials_side_by_side_are_those_one_after_another(small, whole, tmp_path, dataset, workers):
    run(spec_of(small, dataset, "random_search"), tmp_path, workers=workers)
    assert content(tmp_path) == whole(dataset, "random_search")


def test_trials_side_by_side_go_on_after_an_interruption(small, whole, tmp_path):
    spec = spec_of(small, "mnist", "random_search")
    run(spec, tmp_path, after=2, workers=2)
    _, watcher = run(spec, tmp_path, workers=2)
    assert len(watcher.tables[HISTORY]) == 2
    assert content(tmp_path) == whole("mnist", "random_search")


def test_a_clock_that_is_set_back_leaves_the_times_of_a_run_in_order(small, tmp_path, monkeypatch):
    clock = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    execute(spec_of(small, "mnist", "fixed"), tmp_path, [], print, time.monotonic())
    result = read_result(tmp_path / RESULT)
    assert result.train_seconds < result.total_seconds < 3600
    assert result.started < result.ended
