"""The effect of each reading of the paper, on the small real subset (R4, R6, R11, R18 to R22)."""

from dataclasses import replace

import pytest
import torch

from cpmlho.core.options import Search
from cpmlho.core.planes import PlaneState
from cpmlho.study.data import load as load_arrays
from cpmlho.study.events import Metrics, Snapshot
from cpmlho.study.harness.record import Record
from cpmlho.study.harness.run import execute
from cpmlho.study.problem import problem_of
from cpmlho.study.protocol import RunKey
from cpmlho.study.results import HISTORY, HYPERPARAMETERS, TRIALS, read_rows
from cpmlho.study.trials import fraction, start_point

CPU = torch.device("cpu")


def run(small, folder, method, training=None, **options):
    """Return the tables of a run with these options."""
    spec = small.resolve(RunKey("mnist", method, 0))
    changes = {"settings": replace(spec.settings, **options), "training": replace(spec.training, **(training or {}))}
    execute(spec.model_copy(update=changes), folder, [], print, 0.0)
    rows = read_rows(folder / HISTORY)
    tables = {HISTORY: [{name: row[name] for name in row if name != "seconds"} for row in rows]}
    for name in (HYPERPARAMETERS, TRIALS):
        if (folder / name).exists():
            tables[name] = read_rows(folder / name)
    return tables


@pytest.mark.parametrize(("method", "plain"), [("cpmlho", "delta_stn"), ("cpmlho_uncentred", "stn")])
def test_with_both_parts_off_a_reading_is_its_comparator_to_the_last_bit(small, tmp_path, method, plain):
    off = run(small, tmp_path / "off", method, cutting_planes=False, mixed_level=False)
    assert off == run(small, tmp_path / "plain", plain)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("stn", {"response": "stn_joint"}),
        ("delta_stn", {"response_learning_rate": 0.05}),
        ("cpmlho", {"upper_regularised": True}),
        ("cpmlho", {"constraint": "raw", "cut_steps": 5}),
        ("cpmlho_uncentred", {"constraint": "displaced", "cut_steps": 5}),
        ("cpmlho", {"multiplier": "adbo", "cut_steps": 7}),
        ("cpmlho", {"per_layer": True, "cut_steps": 5}),
    ],
)
def test_a_reading_changes_the_run(small, tmp_path, method, options):
    assert run(small, tmp_path / "a", method) != run(small, tmp_path / "b", method, **options)


def test_a_warm_up_leaves_the_hyperparameters_where_they_are(small, tmp_path):
    rows = run(small, tmp_path, "delta_stn", warm_up=1)[HYPERPARAMETERS]  # of two epochs of 13 iterations
    assert [(row["update"], row["step"]) for row in rows] == [(0, 0), (1, 15), (2, 20), (3, 25)]
    assert rows[1]["dropout0"] != rows[0]["dropout0"] == pytest.approx(0.05)


def test_a_random_split_is_of_the_seed_and_the_same_for_all_methods(small):
    def labels(method, seed, split):
        spec = small.resolve(RunKey("mnist", method, seed)).model_copy(update={"split": split})
        problem = problem_of(spec, load_arrays(spec.data, spec.data_dir), CPU)
        return problem.train.labels, problem.valid.labels

    first = labels("fixed", 0, "random")
    for same, other in zip(first, labels("cpmlho", 0, "random"), strict=True):
        assert torch.equal(same, other)
    last = labels("fixed", 0, "last")
    assert not torch.equal(first[1], last[1])
    assert not torch.equal(first[1], labels("fixed", 1, "random")[1])
    assert torch.equal(torch.cat(first).sort()[0], torch.cat(last).sort()[0])
    assert [len(part) for part in first] == [len(part) for part in last]


@pytest.mark.parametrize("method", ["random_search", "bayesian_optimization"])
@pytest.mark.parametrize("prior", ["uniform", "logit"])
def test_a_search_may_begin_at_the_start_values(small, tmp_path, method, prior):
    rows = run(small, tmp_path, method, prior=prior, from_start=True)[TRIALS]
    assert [rows[0][f"dropout{i}"] for i in range(3)] == pytest.approx([0.05] * 3)
    assert rows[1]["dropout0"] != pytest.approx(0.05)


def test_the_logit_prior_is_uniform_in_lambda(small):
    spec = small.resolve(RunKey("mnist", "random_search", 0))
    problem, options = problem_of(spec, load_arrays(spec.data, spec.data_dir), CPU), Search(prior="logit")
    points = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0))
    lam = torch.logit(fraction(options, points))
    torch.testing.assert_close(lam, 10 * points - 5, atol=1e-3, rtol=1e-3)
    at_start = problem.space.at(fraction(options, start_point(problem, options)))
    torch.testing.assert_close(at_start, torch.tensor([each.first for each in problem.space.values()]))


@pytest.mark.parametrize(("gaps", "runaway"), [((4, 5, 6), False), ((4, 5, 6.1), True), ((4, float("nan")), True)])
def test_planes_that_drive_the_response_away_end_a_run(gaps, runaway):
    record = Record(search=False)
    for epoch, g in enumerate(gaps, 1):
        planes = [PlaneState(epoch, epoch, epoch, g, g, 1.0, 0.1, 0)]
        snapshot = Snapshot(epoch, epoch, lambda x: x, {"dropout0": 0.1}, planes=planes)
        record.add(snapshot, Metrics(0.2, 0.9, 0.2, 0.9))
    assert record.diverged == record.over == runaway


def test_a_run_away_is_diverged_and_keeps_its_history(small, tmp_path):
    spec = small.resolve(RunKey("mnist", "cpmlho", 0))
    options = {"constraint": "raw", "force": "always", "mu_init": 1e4, "cut_steps": 5}
    result = execute(spec.model_copy(update={"settings": replace(spec.settings, **options)}), tmp_path, [], print, 0.0)
    assert result.status == "diverged"
    assert read_rows(tmp_path / HISTORY)
