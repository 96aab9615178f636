"""How far two sets of the same runs are apart, in units of the seeds' standard deviation."""

import math

import pytest

from cpmlho.study.protocol import RunKey
from cpmlho.study.report.equality import agreement
from cpmlho.study.results import METRICS


def finals(losses, method="cpmlho", **others):
    """Runs with these validation losses, by seed; their other metrics are all alike."""
    return {
        RunKey("mnist", method, seed): {**dict.fromkeys(METRICS, 0.5), "val_loss": loss, **others}
        for seed, loss in enumerate(losses)
    }


THREE = finals([1.0, 2.0, 3.0])  # a standard deviation of 1


def test_the_unit_is_the_standard_deviation_over_seeds():
    found = agreement(finals([1.0, 2.25, 3.0]), finals([0.0, 2.0, 4.0, 2.0, 2.0]))
    assert found.largest == pytest.approx(1 / math.sqrt(2))  # of the set with more seeds: sqrt(8 / 4)
    assert found.where in ("mnist/cpmlho/seed0, val_loss", "mnist/cpmlho/seed2, val_loss")
    assert found.compared == 3


def test_each_method_has_a_unit_of_its_own():
    coarse = finals([10.0, 20.0, 30.0], "delta_stn")
    found = agreement({**THREE, **coarse}, {**finals([1.0, 2.0, 3.5]), **finals([10.0, 21.0, 30.0], "delta_stn")})
    assert found.where == "mnist/cpmlho/seed2, val_loss"
    assert found.compared == 6


def test_equal_runs_are_not_apart_even_where_seeds_are_too_few_to_have_a_spread():
    assert agreement(finals([1.0]), finals([1.0])).largest == 0
    assert agreement(finals([1.0]), finals([1.1])).largest == math.inf


def test_diverged_runs_agree_with_each_other_alone():
    assert agreement(finals([math.nan, 1.0, 2.0]), finals([math.nan, 1.0, 2.0])).largest == 0
    assert agreement(finals([math.nan, 1.0, 2.0]), finals([0.0, 1.0, 2.0])).largest == math.inf


def test_without_a_run_in_both_there_is_nothing_to_compare():
    assert agreement(THREE, finals([1.0], "delta_stn")) is None
