"""Every statistic over seeds: pairing, intervals, exact tests, Holm's correction, and how many seeds would decide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

LEVEL = 0.05  # of all tests; the intervals have the rest
POWER = 0.8
FEWEST_SEEDS = 5  # with fewer, no interval decides anything
MOST_SEEDS = 10_000
Array = NDArray[np.float64]


class Summary(NamedTuple):
    """Mean, sample standard deviation and 95 % Student-t interval over seeds; NaN where they are undefined."""

    mean: float
    std: float
    ci_low: float
    ci_high: float
    n_seeds: int

    def named(self, prefix: str) -> dict[str, Any]:
        """The columns of a table: each field after a prefix."""
        return {f"{prefix}_{name}": value for name, value in self._asdict().items()}


def quantile(n: int, level: float = LEVEL) -> float:
    """Student's t beyond which, on both sides together, `level` of the means of `n` values lie."""
    return float(special.stdtrit(n - 1, 1 - level / 2)) if n > 1 else float("nan")


def half_width(n: int) -> float:
    """Half of the 95 % Student-t interval of a mean of `n` values, in units of their sample standard deviation."""
    return float(quantile(n) / n**0.5)


def summarise(values: Iterable[float]) -> Summary:
    """Summarise one number over seeds."""
    array = np.fromiter(values, dtype=float)
    n = len(array)
    mean = float(array.mean()) if n else float("nan")
    std = float(array.std(ddof=1)) if n > 1 else float("nan")
    half = half_width(n) * std if n > 1 else float("nan")
    return Summary(mean, std, mean - half, mean + half, n)


def pairs(runs: pd.DataFrame, method: str, other: str, column: str) -> pd.DataFrame:
    """Values of two methods by seed, `ours` and `theirs`, on the seeds that both have.

    Args:
        runs: a row for each method and seed, of one dataset.
        method: the first of the two.
        other: the second.
        column: of the values.
    """
    by_seed = runs.pivot(index="seed", columns="method", values=column).reindex(columns=[method, other])
    return by_seed.set_axis(["ours", "theirs"], axis=1).dropna()


def paired(runs: pd.DataFrame, method: str, other: str, column: str) -> Summary:
    """Differences `method` minus `other` over the seeds that both have, as `pairs` takes them."""
    both = pairs(runs, method, other, column)
    return summarise(both["ours"] - both["theirs"])


def significant_best(runs: pd.DataFrame, column: str, *, lowest: bool) -> str | None:
    """The method of the best mean on one dataset, if its paired interval against the second excludes zero."""
    means = runs.groupby("method", sort=False)[column].mean().sort_values(ascending=lowest, kind="stable")
    if len(means) < 2:
        return None
    best, second = means.index[:2]
    difference = paired(runs, best, second, column)
    better = difference.ci_high < 0 if lowest else difference.ci_low > 0
    return str(best) if better else None


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
    from scipy import stats

    mean, std = float(x.mean()), float(x.std(ddof=1))
    p = float(stats.permutation_test((x,), np.mean, permutation_type="samples", rng=np.random.default_rng(0)).pvalue)
    return Estimate(mean, *interval(x), p, std, len(x))


def interval(x: Array) -> tuple[float, float]:
    """The 95 % BCa bootstrap interval of the mean of `x` (n,), n >= 2."""
    if np.ptp(x) <= 1e-12 * np.abs(x).max():  # BCa divides by the spread
        return float(x.mean()), float(x.mean())
    from scipy import stats

    bounds = stats.bootstrap(
        (x,), np.mean, confidence_level=1 - LEVEL, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(bounds.low), float(bounds.high)


def predicted(values: Sequence[float] | Array) -> tuple[float, float]:
    """Where one further seed lies with 95 %: Student's prediction interval of `values` (n,), n >= 2."""
    x = np.asarray(values, dtype=float)
    half = float(quantile(len(x)) * x.std(ddof=1) * np.sqrt(1 + 1 / len(x)))
    return float(x.mean()) - half, float(x.mean()) + half


def outlying(values: Sequence[float] | Array, printed: float) -> float:
    """p-value of `printed` being one further seed beside `values` (n,), n >= 2: the prediction interval's test."""
    x = np.asarray(values, dtype=float)
    scale = x.std(ddof=1) * np.sqrt(1 + 1 / len(x))
    return (
        float(2 * special.stdtr(len(x) - 1, -abs(printed - x.mean()) / scale)) if scale > 0 else float(printed == x[0])
    )


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
    threshold = special.stdtrit(n - 1, 1 - LEVEL / tests / 2)
    enough = special.nctdtr(n - 1, abs(effect) / std * np.sqrt(n), threshold) <= 1 - POWER
    return int(n[np.argmax(enough)]) if enough.any() else None


def seeds_excluding(std: float, distance: float, tests: int = 1) -> int | None:
    """The fewest seeds of this spread whose prediction interval leaves out a number at this distance from their mean.

    Args:
        std: of the seeds, above 0.
        distance: of the number from the mean of the seeds.
        tests: among how many, by Holm's correction, the p-value must be below 0.05 at worst.
    """
    n = np.arange(FEWEST_SEEDS, MOST_SEEDS)
    excluded = 2 * special.stdtr(n - 1, -abs(distance) / (std * np.sqrt(1 + 1 / n))) < LEVEL / tests
    return int(n[np.argmax(excluded)]) if excluded.any() else None
