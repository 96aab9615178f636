"""The result files: written whole or not at all, read back as they were."""

import errno
import fcntl
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpmlho.core.events import Metrics
from cpmlho.core.options import Fixed
from cpmlho.study import results
from cpmlho.study.files import locked, write_text
from cpmlho.study.protocol import ConfigError, RunKey, load
from cpmlho.study.results import (
    HISTORY,
    RESULT,
    ResultError,
    RunResult,
    read_result,
    read_rows,
    run_dir,
    to_csv,
    with_values,
    write_run,
)
from cpmlho.study.tracking.replay import at_work

ROOT = Path(__file__).parents[2]


def result(**changes):
    spec = load([ROOT / "config.yaml"]).resolve(RunKey("mnist", "cpmlho", 2))
    metrics = Metrics(val_loss=0.1, val_acc=0.9, test_loss=0.2, test_acc=0.8)
    content = {
        "spec": spec,
        "status": "done",
        "final": metrics,
        "best": metrics,
        "hyperparameters": dict.fromkeys(spec.data.hyperparameters, 0.1),
        "steps": 10,
        "train_seconds": 1.0,
        "train_cpu_seconds": 1.0,
        "evaluation_seconds": 0.5,
        "total_seconds": 2.0,
        "peak_memory_mb": 3.0,
        "device": "cpu",
        "precision": "float32",
        "versions": {"torch": "2"},
        "git_commit": "abc",
        "code": "c0de",
        "data_sha256": spec.data.sha256,
    }
    return RunResult(**(content | changes))


def test_a_result_comes_back_as_it_was(tmp_path):
    written = result()
    write_run(tmp_path, written, {HISTORY: [{"epoch": 1, "val_loss": 0.1}]})
    assert read_result(tmp_path / RESULT) == written
    assert written.key == RunKey("mnist", "cpmlho", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [HISTORY, RESULT]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_diverged_result_comes_back(tmp_path, value):
    bad = Metrics(val_loss=value, val_acc=0.1, test_loss=value, test_acc=0.1)
    write_run(tmp_path, result(status="diverged", final=bad), {})
    assert repr(read_result(tmp_path / RESULT).final.val_loss) == repr(value)


number = st.one_of(st.integers(-(2**40), 2**40), st.floats())


@given(st.lists(st.fixed_dictionaries({"a": number, "b": number, "status": st.sampled_from(["done", "diverged"])})))
def test_rows_keep_every_digit(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    write_text(path, to_csv(rows))
    assert [sorted(map(repr, row.items())) for row in read_rows(path)] == [
        sorted(map(repr, row.items())) for row in rows
    ]


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


def test_the_result_is_written_last(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(results, "write_text", lambda path, text: order.append(path.name))
    write_run(tmp_path, result(), {HISTORY: [], "other.csv": []})
    assert order == [HISTORY, "other.csv", RESULT]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"spec": 1}', b"\xff"])
def test_a_damaged_result_is_named(tmp_path, content):
    path = tmp_path / RESULT
    path.write_bytes(content)
    with pytest.raises(ResultError, match=r"result\.json: not a result of this version") as error:
        read_result(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ResultError, match=r"result\.json: cannot be read: No such file"):
        read_result(tmp_path / RESULT)
    with pytest.raises(ResultError, match=r"history\.csv: cannot be read: No such file"):
        read_rows(tmp_path / HISTORY)


def test_the_place_of_a_run():
    assert run_dir("results", RunKey("mnist", "cpmlho", 3)) == Path("results/runs/mnist/cpmlho/seed3")


def spec_of(method):
    return load([ROOT / "config.yaml"]).resolve(RunKey("mnist", method, 0))


def fixed(values_of):
    return spec_of("fixed").model_copy(update={"settings": Fixed(values_of=values_of)})


def test_values_of_another_run_become_the_start(tmp_path):
    ended = {"dropout0": 0.25, "dropout1": 0.0625, "dropout2": 0.5}
    source = result(spec=spec_of("cpmlho"), hyperparameters=ended)
    write_run(run_dir(tmp_path, source.key), source, {})
    spec = with_values(fixed("cpmlho"), tmp_path)
    assert {name: each.start for name, each in spec.data.hyperparameters.items()} == ended
    assert with_values(fixed(None), tmp_path) == fixed(None)


def test_values_that_are_not_there_or_out_of_range_are_named(tmp_path):
    with pytest.raises(ResultError, match=r"mnist/cpmlho/seed0/result\.json: cannot be read"):
        with_values(fixed("cpmlho"), tmp_path)
    ended = {"dropout0": 0.25, "dropout1": 0.0, "dropout2": 0.5}
    source = result(spec=spec_of("cpmlho"), hyperparameters=ended)
    write_run(run_dir(tmp_path, source.key), source, {})
    with pytest.raises(ConfigError, match=r"result\.json: data\..*dropout1\.start: .* greater than 0, got 0\.0"):
        with_values(fixed("cpmlho"), tmp_path)


# The first edition


NEWER = {  # settings that the first edition did not have
    *("constraint", "force", "per_layer", "cut_steps", "upper_regularised", "warm_up", "response_learning_rate"),
}


def first_edition(method, algorithm, path, **settings):
    """A result as the first edition wrote it."""
    content = json.loads(result(spec=spec_of(algorithm)).model_dump_json())
    spec = content["spec"]
    spec["method"] = method
    spec["settings"] = {k: v for k, v in spec["settings"].items() if k not in NEWER} | settings
    spec["training"].pop("momentum")
    spec.pop("split")
    for name in ("started", "ended", "environment"):
        content.pop(name)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("constraint", ["raw", "value"])
def test_planes_of_the_first_edition_pulled_always(tmp_path, constraint):
    path = first_edition(
        "cpmlho", "cpmlho", tmp_path / RESULT, wh_at=constraint, multiplier="dual_ascent", max_planes=3
    )
    read = read_result(path).spec
    settings = read.settings
    assert (settings.constraint, settings.force) == (constraint, "always")
    assert (settings.multiplier, settings.max_planes) == ("dual_ascent", 3)
    assert (settings.warm_up, settings.cut_steps, settings.response_learning_rate) == (0, None, None)
    assert (settings.per_layer, settings.upper_regularised) == (False, False)
    assert (read.training.momentum, read.split) == (0.0, "last")


def test_the_stn_of_the_first_edition_is_not_todays_method(tmp_path):
    path = first_edition("stn", "delta_stn", tmp_path / RESULT, response="stn")
    read = read_result(path).spec
    assert (read.method, read.algorithm, read.settings.response) == ("stn_two_steps", "delta_stn", "stn")
    mine = first_edition("delta_stn", "delta_stn", tmp_path / RESULT)
    assert read_result(mine).spec.method == "delta_stn"


@pytest.mark.parametrize("edition", ["published"])
def test_published_results_are_read(request, edition):
    paths = sorted(request.getfixturevalue(edition).glob("runs/*/*/seed0/result.json"))
    assert len(paths) > 5
    for path in paths:
        written, read = json.loads(path.read_text())["spec"], read_result(path)
        settings, epochs = written["settings"], written["data"]["epochs"]
        assert read.key == RunKey(*path.parts[-4:-2], 0)
        assert (read.spec.algorithm, read.spec.data.epochs) == (settings["algorithm"], epochs)
        if "wh_at" in settings:
            assert read.spec.settings.constraint == settings["wh_at"]
            assert (read.spec.settings.force, read.spec.settings.cut_steps) == ("always", None)
