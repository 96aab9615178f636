"""The result files: written whole or not at all, read back as they were."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpmlho.core.options import Fixed
from cpmlho.core.planes import PlaneState
from cpmlho.study import results
from cpmlho.study.events import Metrics, Snapshot
from cpmlho.study.files import write_text
from cpmlho.study.harness.record import Record
from cpmlho.study.protocol import ConfigError, RunKey, load
from cpmlho.study.results import (
    HISTORY,
    PLANES,
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
        "numerics": 2,
        "data_sha256": spec.data.sha256,
    }
    return RunResult(**(content | changes))


def history(*losses, step=10):
    """A row for each validation loss; all else is as in `result`."""
    others = {"val_acc": 0.9, "test_loss": 0.2, "test_acc": 0.8}
    return [
        {"epoch": i, "step": step * i // len(losses), "seconds": float(i), "val_loss": loss, **others}
        for i, loss in enumerate(losses, 1)
    ]


def write(folder, written, rows=None, **tables):
    """A run's files; history.csv agrees with result.json unless its rows are given."""
    rows = history(0.1) if rows is None else rows
    write_run(folder, written, {HISTORY: rows, **tables})
    return folder / RESULT


def test_a_result_comes_back_as_it_was(tmp_path):
    written = result(g_ratio={"1": 0.5, "2": 1.25}, plugins={"method": "ab"}, tables=[HISTORY])
    assert read_result(write(tmp_path, written)) == written
    assert written.key == RunKey("mnist", "cpmlho", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [HISTORY, RESULT]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e9])
def test_a_diverged_result_comes_back(tmp_path, value):
    bad = Metrics(val_loss=value, val_acc=0.9, test_loss=0.2, test_acc=0.8)
    written = result(status="diverged", diverged_by="loss", final=bad, g_ratio={"all": value})
    read = read_result(write(tmp_path, written, history(0.1, value)))
    assert repr(read) == repr(written)


def test_history_may_have_the_training_loss_of_each_evaluation(tmp_path):
    rows = [row | {"train_loss": loss} for row, loss in zip(history(0.2, 0.1), [math.nan, 0.3], strict=True)]
    read_result(write(tmp_path, result(), rows))
    assert [repr(row["train_loss"]) for row in read_rows(tmp_path / HISTORY)] == ["nan", "0.3"]


def changed(path, change):
    """Edit a result.json as a person might, whatever the model would say."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


DAMAGED = "damaged, remove its folder and run again"
INCONSISTENT = {
    "final loss": (lambda it: it["final"].update(val_loss=0.0001), "final.val_loss is 0.0001, but history.csv has 0.1"),
    "final accuracy": (lambda it: it["final"].update(test_acc=0.99), "final.test_acc is 0.99, but history.csv has 0.8"),
    "best loss": (lambda it: it["best"].update(val_loss=0.2), "best.val_loss is 0.2, but history.csv has 0.05"),
    "steps": (lambda it: it.update(steps=11), f"{HISTORY}: {DAMAGED}: it ends at step 10, but {RESULT} at 11"),
    "nan and done": (
        lambda it: it["final"].update(val_loss=math.nan),
        "status is done, but the run has diverged by loss",
    ),
    "future version": (lambda it: it.update(energy=1.5), "energy: Extra inputs are not permitted, got 1.5"),
    "text for a number": (lambda it: it.update(steps="many"), "unable to parse string as an integer, got 'many'"),
    "reason and done": (lambda it: it.update(diverged_by="g"), "status is done, but the run has diverged by g"),
    "table": (
        lambda it: it.update(tables=[HISTORY, PLANES]),
        "planes.csv: damaged, remove its folder and run again: it is not there",
    ),
}


@pytest.mark.parametrize(("change", "says"), INCONSISTENT.values(), ids=INCONSISTENT)
def test_a_result_that_contradicts_itself_or_its_tables_is_one_line_that_names_it(tmp_path, change, says):
    written = result(best=Metrics(val_loss=0.05, val_acc=0.9, test_loss=0.2, test_acc=0.8))
    path = write(tmp_path, written, history(0.3, 0.05, 0.1))
    assert read_result(path) == written
    changed(path, change)
    with pytest.raises(ResultError) as error:
        read_result(path)
    assert str(error.value).startswith(f"{tmp_path}/")
    assert str(error.value).endswith(says)


def test_the_result_of_another_run_is_refused(tmp_path):
    path = write(run_dir(tmp_path, RunKey("mnist", "cpmlho", 3)), result())
    with pytest.raises(ResultError, match=r"seed3/result\.json: is the result of mnist/cpmlho/seed2; remove it"):
        read_result(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.rpartition(",")[0], "a row is of another length than the header"),
        (lambda text: text.replace("1.0", "nan"), "line 2, seconds: 'nan'"),
        (lambda text: text.replace("0.9", "good"), "line 2, val_acc: 'good'"),
        (lambda text: "a,b\n1,2\n", "no epoch, seconds, step, test_acc, test_loss, val_acc, val_loss"),
    ],
)
def test_a_damaged_table_is_one_line_that_names_it(tmp_path, change, says):
    path = tmp_path / HISTORY
    path.write_text(change(to_csv(history(0.1))))
    with pytest.raises(ResultError) as error:
        read_rows(path)
    assert str(error.value) == f"{path}: {DAMAGED}: {says}"


@pytest.mark.parametrize(
    ("gs", "ratios", "by"),
    [
        ([(4.0, 2.0)], {}, None),  # after one epoch there is nothing to compare with
        ([(4.0, 2.0), (3.0, 1.0), (3.5, 2.5)], {"1": 0.875, "2": 1.25}, None),
        ([(4.0, 2.0), (4.0, 3.5)], {"1": 1.0, "2": 1.75}, "g of layer 2"),
        ([(4.0, math.nan)], {"2": math.nan}, "g of layer 2"),
        ([(0.0, 2.0), (0.0, 2.0)], {"1": 0.0, "2": 1.0}, None),
    ],
)
def test_g_is_compared_with_its_first_value_layer_by_layer(gs, ratios, by):
    record = Record(search=False)
    for epoch, values in enumerate(gs, 1):
        planes = [
            PlaneState(epoch, epoch, plane, g, g, 1.0, 0.1, layer)
            for layer, g in enumerate(values, 1)
            for plane in (1, 2)  # planes on one layer share its g
        ]
        snapshot = Snapshot(epoch, epoch, lambda x: x, {"dropout0": 0.1}, planes=planes)
        record.add(snapshot, Metrics(0.2, 0.9, 0.2, 0.9))
    assert {layer: repr(ratio) for layer, ratio in record.g_ratio.items()} == {k: repr(v) for k, v in ratios.items()}
    assert record.diverged_by == by


def test_a_search_is_judged_by_its_best_trial(tmp_path):
    written = result(spec=spec_of("random_search"))
    path = write(tmp_path, written, history(0.3, 0.1, math.nan, 0.2))
    assert read_result(path) == written
    changed(path, lambda it: it["final"].update(val_loss=0.2))
    with pytest.raises(ResultError, match=r"final\.val_loss is 0\.2, but history\.csv has 0\.1"):
        read_result(path)


@pytest.mark.parametrize(("rows", "says"), [([], "no epoch, "), (None, "cannot be read: No such file")])
def test_a_result_without_its_history_is_refused(tmp_path, rows, says):
    write(tmp_path, result(), rows or [])
    if rows is None:
        (tmp_path / HISTORY).unlink()
    with pytest.raises(ResultError, match=rf"history\.csv: .*{says}"):
        read_result(tmp_path / RESULT)


number = st.one_of(st.integers(-(2**40), 2**40), st.floats())


@given(st.lists(st.fixed_dictionaries({"a": number, "b": number, "status": st.sampled_from(["done", "diverged"])})))
def test_rows_keep_every_digit(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    write_text(path, to_csv(rows))
    assert [sorted(map(repr, row.items())) for row in read_rows(path)] == [
        sorted(map(repr, row.items())) for row in rows
    ]


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
    write(run_dir(tmp_path, source.key), source)
    spec = with_values(fixed("cpmlho"), tmp_path)
    assert {name: each.start for name, each in spec.data.hyperparameters.items()} == ended
    assert with_values(fixed(None), tmp_path) == fixed(None)


def test_values_that_are_not_there_or_out_of_range_are_named(tmp_path):
    with pytest.raises(ResultError, match=r"mnist/cpmlho/seed0/result\.json: cannot be read"):
        with_values(fixed("cpmlho"), tmp_path)
    ended = {"dropout0": 0.25, "dropout1": 0.0, "dropout2": 0.5}
    source = result(spec=spec_of("cpmlho"), hyperparameters=ended)
    write(run_dir(tmp_path, source.key), source)
    with pytest.raises(ConfigError, match=r"result\.json: data\..*dropout1\.start: .* greater than 0, got 0\.0"):
        with_values(fixed("cpmlho"), tmp_path)
