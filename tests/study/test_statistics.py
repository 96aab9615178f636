"""The statistics against their definitions."""

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import nct, t

from cpmlho.study.report.stats import (
    FEWEST_SEEDS,
    LEVEL,
    POWER,
    estimate,
    holm,
    interval,
    outlying,
    predicted,
    seeds_excluding,
    seeds_needed,
)

whole = st.lists(st.integers(-20, 20), min_size=2, max_size=8)  # sums of whole numbers are exact
spread = st.lists(st.integers(-1000, 1000), min_size=3, max_size=9).filter(lambda x: len(set(x)) > 1)
probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(whole)
def test_the_p_value_counts_all_flips_of_signs(x):
    sums = [
        sum(sign * value for sign, value in zip(signs, x, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(x))
    ]
    above, below = (sum(side * each >= side * sum(x) for each in sums) / len(sums) for side in (1, -1))
    assert estimate(x).p == pytest.approx(min(1, 2 * min(above, below)))


@given(whole)
def test_mean_and_deviation_are_those_of_the_sample(x):
    found = estimate(x)
    assert found.n == len(x)
    assert found.mean == pytest.approx(statistics.fmean(x))
    assert found.std == pytest.approx(statistics.stdev(x))


def test_too_few_seeds_have_no_interval():
    assert [math.isnan(value) for value in estimate([])] == [True] * 5 + [False]
    one = estimate([0.25])
    assert (one.mean, one.n) == (0.25, 1)
    assert all(math.isnan(value) for value in (one.ci_low, one.ci_high, one.p, one.std))


@given(spread, st.integers(-5, 5), st.sampled_from([0.5, 2.0, 8.0]))
def test_the_interval_moves_and_grows_with_its_values(x, shift, scale):
    low, high = interval(np.array(x, float))
    assert min(x) <= low < high <= max(x)
    moved = interval(scale * np.array(x, float) + shift)
    assert moved == pytest.approx((scale * low + shift, scale * high + shift), rel=1e-6, abs=1e-6)


def test_the_interval_of_equal_values_is_a_point():
    assert interval(np.array([0.1, 0.1, 0.1])) == pytest.approx((0.1, 0.1))
    assert interval(np.zeros(3)) == (0.0, 0.0)


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = [low <= 0 <= high for low, high in (interval(rng.normal(size=10)) for _ in range(300))]
    assert 0.85 < np.mean(covered) < 0.98  # with ten values BCa falls a little short of 0.95


@given(probabilities)
def test_holm_is_its_definition(p):
    ranked = sorted(p)
    by_value = {
        value: max(min(1, (len(p) - j) * ranked[j]) for j in range(ranked.index(value) + ranked.count(value)))
        for value in p
    }
    assert holm(p) == pytest.approx([by_value[value] for value in p])


def test_holm_of_a_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_counts_a_test_without_a_value():
    adjusted = holm([math.nan, 0.01])
    assert math.isnan(adjusted[0])
    assert adjusted[1] == pytest.approx(0.02)


@given(spread)
def test_the_edge_of_the_prediction_interval_has_the_level(x):
    low, high = predicted(x)
    assert low < statistics.fmean(x) < high
    assert outlying(x, low) == pytest.approx(LEVEL)
    assert outlying(x, high) == pytest.approx(LEVEL)


def test_the_prediction_interval_by_hand():
    half = t.ppf(0.975, 2) * 1.0 * math.sqrt(1 + 1 / 3)
    assert predicted([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half))


def test_a_printed_number_beside_equal_values():
    assert outlying([0.5, 0.5], 0.5) == 1
    assert outlying([0.5, 0.5], 0.6) == 0


@given(st.floats(0.1, 3.0), st.integers(1, 20))
def test_so_many_seeds_have_the_power_and_one_fewer_has_not(std, tests):
    n = seeds_needed(std, 1.0, tests)

    def enough(count):
        threshold = t.ppf(1 - LEVEL / tests / 2, count - 1)
        exact = 2 ** (1 - count) * tests <= LEVEL
        return count >= FEWEST_SEEDS and exact and nct.sf(threshold, count - 1, math.sqrt(count) / std) >= POWER

    assert enough(n)
    assert not enough(n - 1)


def test_without_a_spread_or_an_effect_the_fewest_that_can_decide():
    assert seeds_needed(math.nan, 1.0) == seeds_needed(0.0, 1.0) == seeds_needed(1.0, math.nan) == 6
    assert seeds_needed(math.nan, 1.0, tests=8) == 9
    assert seeds_needed(1.0, 1e-6) is None


@given(st.floats(2.8, 6.0), st.integers(1, 8))
def test_so_many_seeds_exclude_a_number_and_one_fewer_does_not(distance, tests):
    n = seeds_excluding(1.0, -distance, tests)

    def excluded(count):
        x = [i - (count - 1) / 2 for i in range(count)]
        unit = math.sqrt(sum(value**2 for value in x) / (count - 1))
        return outlying([value / unit for value in x], distance) < LEVEL / tests

    assert excluded(n)
    assert n == FEWEST_SEEDS or not excluded(n - 1)


def test_no_number_of_seeds_excludes_what_lies_among_them():
    assert seeds_excluding(1.0, 1.9) is None
    assert seeds_excluding(1.0, 2.7, tests=8) is None
