"""Small-sample statistics over seeds: intervals, exact tests, Holm's correction, and how many seeds would decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.05  # of all tests; the intervals have the rest
POWER = 0.8
FEWEST_SEEDS = 5  # with fewer, no interval decides anything
MOST_SEEDS = 10_000
Array = NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % BCa bootstrap interval and its exact two-sided sign-flip p-value against 0."""

    mean: float
    ci_low: float
    ci_high: float
    p: float
    std: float
    n: int


def estimate(values: Sequence[float] | Array) -> Estimate:
    """The mean of one number a seed; NaN where so few seeds give no interval or test.

    The test flips the signs of the differences in all 2^n ways (Fisher 1935); above 13 seeds in 9,999 random ones.
    """
    x = np.asarray(values, dtype=float)
    nan = float("nan")
    if len(x) < 2:
        return Estimate(float(x.mean()) if len(x) else nan, nan, nan, nan, nan, len(x))
    mean, std = float(x.mean()), float(x.std(ddof=1))
    p = float(stats.permutation_test((x,), np.mean, permutation_type="samples", rng=np.random.default_rng(0)).pvalue)
    return Estimate(mean, *interval(x), p, std, len(x))


def interval(x: Array) -> tuple[float, float]:
    """The 95 % BCa bootstrap interval of the mean of `x` (n,), n >= 2."""
    if np.ptp(x) <= 1e-12 * np.abs(x).max():  # BCa divides by the spread
        return float(x.mean()), float(x.mean())
    bounds = stats.bootstrap(
        (x,), np.mean, confidence_level=1 - LEVEL, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(bounds.low), float(bounds.high)


def predicted(values: Sequence[float] | Array) -> tuple[float, float]:
    """Where one further seed lies with 95 %: Student's prediction interval of `values` (n,), n >= 2."""
    x = np.asarray(values, dtype=float)
    half = float(stats.t.ppf(1 - LEVEL / 2, len(x) - 1) * x.std(ddof=1) * np.sqrt(1 + 1 / len(x)))
    return float(x.mean()) - half, float(x.mean()) + half


def outlying(values: Sequence[float] | Array, printed: float) -> float:
    """p-value of `printed` being one further seed beside `values` (n,), n >= 2: the prediction interval's test."""
    x = np.asarray(values, dtype=float)
    scale = x.std(ddof=1) * np.sqrt(1 + 1 / len(x))
    return float(2 * stats.t.sf(abs(printed - x.mean()) / scale, len(x) - 1)) if scale > 0 else float(printed == x[0])


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of p-values (Holm 1979); NaN counts as a test and stays NaN."""
    order = sorted((value, i) for i, value in enumerate(p) if not np.isnan(value))
    adjusted, highest = list(p), 0.0
    for rank, (value, i) in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * value))
        adjusted[i] = highest
    return adjusted


def seeds_needed(std: float, effect: float, tests: int = 1) -> int | None:
    """The fewest seeds at which the test finds `effect` with power 0.8, by the noncentral t of the paired t-test.

    Args:
        std: of the difference between seeds; where it or the effect is not known, the fewest that can decide.
        effect: the difference to be found; None is returned where it takes 10,000 seeds.
        tests: among how many, by Holm's correction, the p-value must be below 0.05 at worst.
    """
    exact = int(np.ceil(1 + np.log2(tests / LEVEL)))  # 2^(1-n) is the smallest p-value of n seeds
    fewest = max(FEWEST_SEEDS, exact)
    if not (std > 0 and abs(effect) > 0):
        return fewest
    n = np.arange(fewest, MOST_SEEDS)
    threshold = stats.t.ppf(1 - LEVEL / tests / 2, n - 1)
    enough = stats.nct.sf(threshold, n - 1, abs(effect) / std * np.sqrt(n)) >= POWER
    return int(n[np.argmax(enough)]) if enough.any() else None


def seeds_excluding(std: float, distance: float, tests: int = 1) -> int | None:
    """The fewest seeds of this spread whose prediction interval leaves out a number at this distance from their mean.

    Args:
        std: of the seeds, above 0.
        distance: of the number from the mean of the seeds.
        tests: among how many, by Holm's correction, the p-value must be below 0.05 at worst.
    """
    n = np.arange(FEWEST_SEEDS, MOST_SEEDS)
    excluded = 2 * stats.t.sf(abs(distance) / (std * np.sqrt(1 + 1 / n)), n - 1) < LEVEL / tests
    return int(n[np.argmax(excluded)]) if excluded.any() else None
