"""The cutting planes of whole runs on the small real subset: they lower g, and the files record them."""

from dataclasses import replace

import pytest

from cpmlho.core.options import CPMLHO, CPMLHOUncentred
from cpmlho.study.harness.run import execute
from cpmlho.study.protocol import RunKey
from cpmlho.study.results import HISTORY, HYPERPARAMETERS, PLANES, RESULT, ResultError, read_result, read_rows


def run(small, folder, method, epochs, settings=None):
    """Return the result and the rows of its planes; `settings` None: those of the configuration."""
    spec = small.resolve(RunKey("mnist", method, 0))
    data = spec.data.model_copy(update={"epochs": epochs})
    changes = {"data": data, "settings": settings or replace(spec.settings, cut_steps=13)}  # an epoch's iterations
    result = execute(spec.model_copy(update=changes), folder, [], print, 0.0)
    return result, read_rows(folder / PLANES)


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["library", "configuration"])
@pytest.mark.parametrize(("method", "options"), [("cpmlho", CPMLHO), ("cpmlho_uncentred", CPMLHOUncentred)])
def test_the_gap_stays_where_it_began_for_thirty_epochs(small, tmp_path, method, options, settings):
    result, rows = run(small, tmp_path, method, 30, options() if settings == "library" else None)
    gaps = [row["g"] for row in rows]
    assert result.status == "done"
    assert len(gaps) >= 27  # the first plane is added at step 50
    assert max(gaps) <= 1.05 * gaps[0]
    assert gaps[-1] < 0.9 * gaps[0]  # 390 iterations; with config.yaml's budgets g falls by a fifth or more


def test_a_run_that_its_planes_drive_away_ends_there_with_its_history(small, tmp_path):
    """The run stops at the first g beyond the bound, although the losses are still good."""
    wild = CPMLHO(constraint="raw", force="always", mu_init=5.0, cut_steps=None, max_planes=3)
    result, rows = run(small, tmp_path, "cpmlho", 30, wild)
    assert result.status == read_result(tmp_path / "result.json").status == "diverged"
    gaps = {row["epoch"]: row["g"] for row in rows}
    *before, last = gaps.values()
    assert last > 1.5 * before[0] >= max(before)
    history = read_rows(tmp_path / HISTORY)
    assert [row["epoch"] for row in history] == list(gaps)
    assert len(history) < 30
    assert history[-1]["val_loss"] < 2.4


@pytest.mark.parametrize("name", [HISTORY, HYPERPARAMETERS, PLANES])
def test_a_table_that_is_gone_is_named_by_whatever_reads_the_run(small, tmp_path, name):
    """Without the recorded planes, a run with a diverged response would count as done."""
    result, _ = run(small, tmp_path, "cpmlho", 1)
    assert result.tables == [HISTORY, HYPERPARAMETERS, PLANES]
    assert read_result(tmp_path / RESULT) == result
    (tmp_path / name).unlink()
    with pytest.raises(ResultError, match=f"{name}: damaged, .*: it is not there"):
        read_result(tmp_path / RESULT)


@pytest.mark.parametrize(("per_layer", "layers"), [(False, [None]), (True, [1, 2, 3])])
def test_rows_name_a_layer_where_planes_are_on_single_layers_alone(small, tmp_path, per_layer, layers):
    _, rows = run(small, tmp_path, "cpmlho", 2, CPMLHO(per_layer=per_layer, cut_steps=None))
    assert [(row["epoch"], row.get("layer")) for row in rows] == [(e, layer) for e in (1, 2) for layer in layers]
    assert ("layer" in (tmp_path / PLANES).read_text().partition("\n")[0]) == per_layer
