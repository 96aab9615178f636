"""The statistics against their definitions, and by simulation: what covers covers, and how often a rule errs."""

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats as scipy

from cpmlho.study.report.stats import (
    LEVEL,
    Summary,
    counts,
    expit,
    half_width,
    holm_levels,
    logit,
    outlying,
    predicted,
    sign_flip,
    summarise,
)

whole = st.lists(st.integers(-20, 20), min_size=2, max_size=8)
spread = st.lists(st.integers(-1000, 1000), min_size=3, max_size=9).filter(lambda x: len(set(x)) > 1)
probabilities = st.lists(st.floats(1e-6, 1), min_size=1, max_size=8)
SEEDS = (5, 10)
MANY = 3000  # samples of a simulation: a share of 0.95 is then known to 0.008 (two standard errors)


@given(whole)
def test_the_p_value_counts_all_flips_of_signs(x):
    sums = [
        sum(sign * value for sign, value in zip(signs, x, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(x))
    ]
    above, below = (sum(side * each >= side * sum(x) for each in sums) / len(sums) for side in (1, -1))
    assert sign_flip(np.array(x)) == pytest.approx(min(1, 2 * min(above, below)))


@given(st.lists(st.integers(-30, 30), min_size=2, max_size=9), st.sampled_from([9000, 10000]))
def test_accuracies_have_the_p_value_of_their_counts(differences, cases):
    theirs = np.array([9000 - 7 * i for i in range(len(differences))])
    ours = theirs + np.array(differences)
    both = counts(np.concatenate([ours, theirs]) / cases)
    found = both[: len(ours)] - both[len(ours) :]
    assert sign_flip(found) == sign_flip(np.array(differences))


def test_shares_that_are_no_counts_come_in_billionths():
    x = np.random.default_rng(0).uniform(size=10)
    assert list(counts(x)) == [round(value * 1e9) for value in x]


def test_ties_of_accuracies_are_ties():
    ours, theirs = np.array([0.9407, 0.9411, 0.9423]), np.array([0.9405, 0.9412, 0.9424])
    both = counts([*ours, *theirs])
    assert list(both[:3] - both[3:]) == [2, -1, -1]
    assert sign_flip(both[:3] - both[3:]) == 1.0  # 0 of 0: every flip that gives 0 is as far


def test_many_differences_are_flipped_at_random_and_few_have_no_p_value():
    x = np.random.default_rng(0).normal(0.6, 1, size=20)
    assert sign_flip(x) == pytest.approx(scipy.ttest_1samp(x, 0).pvalue, abs=0.01)
    assert math.isnan(sign_flip(np.array([0.25])))


@given(spread, st.floats(-5, 5))
def test_the_t_test_is_scipys_and_the_dual_of_the_interval(x, value):
    own = summarise(x)
    assert own.p(value) == pytest.approx(scipy.ttest_1samp(x, value).pvalue, rel=1e-9)
    low, high = own.interval(0.01)
    assert own.p(low) == pytest.approx(0.01)
    assert own.p(high) == pytest.approx(0.01)
    assert own.interval() == pytest.approx((own.ci_low, own.ci_high))


@given(spread, st.floats(0.1, 2000))
@example([0, 0, -265, -1000], 316.5)  # the mean is just inside
def test_an_interval_lies_within_a_bound_from_its_level_on(x, bound):
    own = summarise(x)
    p = own.p_within(bound)
    if p < 1:
        low, high = own.interval(min(p * 1.001, (p + 1) / 2))
        assert -bound < low < high < bound
        low, high = own.interval(p * 0.999)
        assert low < -bound or high > bound
    else:
        assert abs(own.mean) >= bound


def test_equal_values_are_sure_and_one_is_not():
    same = summarise([0.5, 0.5, 0.5])
    assert (same.p(), same.p(0.5), same.p_within(0.6)) == (0.0, 1.0, 0.0)
    one = summarise([0.5])
    assert all(map(math.isnan, (one.p(), one.p_within(1.0), *one.interval())))


@given(probabilities)
def test_below_its_level_is_what_holm_rejects(p):
    ranked = sorted(p)
    adjusted = {
        value: max(min(1, (len(p) - j) * ranked[j]) for j in range(ranked.index(value) + ranked.count(value)))
        for value in p
    }
    rejected = [value <= level for value, level in zip(p, holm_levels(p), strict=True)]
    assert rejected == [adjusted[value] <= LEVEL for value in p]


def test_holms_levels_of_a_textbook():
    assert holm_levels([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.05 / 3, 0.025, 0.025, 0.0125])
    assert holm_levels([math.nan, 0.01]) == [0.05, 0.025]  # a test without a value counts
    assert holm_levels([]) == []


@given(spread)
def test_the_edge_of_the_prediction_interval_has_the_level(x):
    own = summarise(x)
    low, high = predicted(own)
    assert low < statistics.fmean(x) < high
    assert outlying(own, high, high + 1) == pytest.approx(LEVEL)
    assert outlying(own, low - 1, low) == pytest.approx(LEVEL)
    assert outlying(own, low - 1, own.mean) == 1


def test_the_prediction_interval_by_hand():
    half = scipy.t.ppf(0.975, 2) * 1.0 * math.sqrt(1 + 1 / 3)
    assert predicted(summarise([1.0, 2.0, 3.0])) == pytest.approx((2 - half, 2 + half))
    assert outlying(summarise([0.5, 0.5]), 0.45, 0.55) == 1
    assert outlying(summarise([0.5, 0.5]), 0.55, 0.65) == 0


@given(st.floats(1e-5, 1 - 1e-5))
def test_expit_undoes_logit(share):
    assert expit(float(logit(np.array(share)))) == pytest.approx(share)


def samples(n: int, extra: int = 0) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(MANY, n + extra))


@pytest.mark.parametrize("n", SEEDS)
def test_intervals_cover_the_mean(n):
    x = samples(n)
    half = half_width(n) * x.std(axis=1, ddof=1)
    assert np.mean(np.abs(x.mean(axis=1)) <= half) >= 0.93


@pytest.mark.parametrize("n", SEEDS)
def test_corrected_intervals_cover_all_their_means_at_once(n):
    x = samples(5 * n).reshape(MANY, 5, n)
    covered = []
    for tests in x:
        own = [summarise(each) for each in tests]
        levels = holm_levels([each.p() for each in own])
        covered.append(
            all(low <= 0 <= high for low, high in (each.interval(a) for each, a in zip(own, levels, strict=True)))
        )
    assert np.mean(covered) >= 0.93


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("rate", [0.003, 0.05, 0.4])
def test_prediction_intervals_of_rates_cover_a_further_seed(n, rate):
    rates = scipy.logistic.cdf(samples(n, 1) * 0.7 + math.log(rate / (1 - rate)))
    own, further = logit(rates[:, :-1]), rates[:, -1]
    covered = []
    for x, value in zip(own, further, strict=True):
        low, high = predicted(summarise(x))
        covered.append(expit(low) <= value <= expit(high))
    assert np.mean(covered) >= 0.93


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("decimals", [3, 2, 1])
def test_a_further_seed_that_is_rounded_is_seldom_excluded(n, decimals):
    """However coarse the rounding: without its interval, 2.2 would be excluded where 2.24 is not."""
    x, half = samples(n, 1) * 0.03 + 2.2, 0.5 * 10.0**-decimals
    printed = np.round(x[:, -1], decimals)
    p = [outlying(summarise(own), value - half, value + half) for own, value in zip(x[:, :-1], printed, strict=True)]
    assert np.mean(np.array(p) <= LEVEL) <= 0.07


@pytest.mark.parametrize("n", SEEDS)
def test_the_exact_test_errs_as_seldom_as_it_says(n):
    p = np.array([sign_flip(np.rint(2 * x).astype(int)) for x in samples(n)[:1000]])
    assert np.mean(p <= LEVEL) <= 0.07


def test_a_summary_names_its_columns():
    assert list(Summary(1.0, 2.0, 3.0, 4.0, 5).named("a")) == ["a_mean", "a_std", "a_ci_low", "a_ci_high", "a_n_seeds"]
