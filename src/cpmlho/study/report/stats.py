"""Every statistic over seeds: pairing, intervals, tests and their correction for number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special
from scipy.stats import binomtest

LEVEL = 0.05  # of all tests together; the intervals have the rest
FEWEST_SEEDS = 5  # with fewer, no interval decides anything
EXPLORATORY = 10  # what rests on fewer seeds is called exploratory
EXACT = 16  # seeds up to which every flip of signs is counted
Array = NDArray[np.float64]
Counts = NDArray[np.int64]


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

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The Student-t interval that leaves out the mean in a share `level` of cases."""
        half = half_width(self.n_seeds, level) * self.std
        return self.mean - half, self.mean + half

    def p(self, value: float = 0.0) -> float:
        """Two-sided p-value of the t-test of the mean against a value: the level whose interval ends there."""
        if self.n_seeds < 2:
            return math.nan
        error = self.std / self.n_seeds**0.5
        return _tail(abs(self.mean - value), error, self.n_seeds - 1)

    def p_within(self, bound: float) -> float:
        """The level from which on the whole interval lies inside ± `bound`; 1 where the mean does not."""
        if self.n_seeds < 2:
            return math.nan
        return max(self.p(bound), self.p(-bound)) if abs(self.mean) < bound else 1.0


def _tail(distance: float, error: float, freedom: int) -> float:
    if error == 0:
        return float(distance == 0)
    return float(2 * special.stdtr(freedom, -distance / error))


def half_width(n: int, level: float = LEVEL) -> float:
    """Half of the Student-t interval of a mean of `n` values, in units of their sample standard deviation."""
    return float(special.stdtrit(n - 1, 1 - level / 2) / n**0.5) if n > 1 else math.nan


def summarise(values: Iterable[float]) -> Summary:
    """Summarise one number over seeds."""
    array = np.fromiter(values, dtype=float)
    n = len(array)
    mean = float(array.mean()) if n else math.nan
    std = float(array.std(ddof=1)) if n > 1 else math.nan
    half = half_width(n) * std
    return Summary(mean, std, mean - half, mean + half, n)


def pairs(runs: pd.DataFrame, method: str, other: str, column: str) -> pd.DataFrame:
    """Values of two methods by seed, `ours` and `theirs`, on the seeds that both have.

    Args:
        runs: a row for each method and seed, of one dataset.
        method: the first of the two.
        other: the second.
        column: of the values.
    """
    methods, seeds = runs["method"].to_numpy(), runs["seed"].to_numpy(dtype=int)
    values = runs[column].to_numpy(dtype=float)
    there = ~np.isnan(values)
    ours, theirs = ((methods == name) & there for name in (method, other))
    both, first, second = np.intersect1d(seeds[ours], seeds[theirs], assume_unique=True, return_indices=True)
    return pd.DataFrame({"ours": values[ours][first], "theirs": values[theirs][second]}, index=both)


def paired(runs: pd.DataFrame, method: str, other: str, column: str) -> Summary:
    """Differences `method` minus `other` over the seeds that both have, as `pairs` takes them."""
    both = pairs(runs, method, other, column)
    return summarise(both["ours"] - both["theirs"])


def signs(both: pd.DataFrame) -> tuple[int, int]:
    """In how many pairs `ours` is below and above `theirs`."""
    return int((both["ours"] < both["theirs"]).sum()), int((both["ours"] > both["theirs"]).sum())


def sign_test(below: int, above: int) -> float:
    """Two-sided p-value of the sign test: either sign being equally likely; 1 without a pair that differs."""
    return float(binomtest(below, below + above).pvalue) if below + above else 1.0


def significant_best(runs: pd.DataFrame, column: str, *, lowest: bool) -> str | None:
    """The method of the best mean on one dataset, if its paired interval against the second excludes zero."""
    means = runs.groupby("method", sort=False)[column].mean().sort_values(ascending=lowest, kind="stable")
    if len(means) < 2:
        return None
    best, second = means.index[:2]
    difference = paired(runs, best, second, column)
    better = difference.ci_high < 0 if lowest else difference.ci_low > 0
    return str(best) if better else None


def logit(share: Array) -> Array:
    """log(x / (1 - x)) of shares (n,), from a millionth to one less a millionth."""
    return np.asarray(special.logit(np.clip(share, 1e-6, 1 - 1e-6)), dtype=float)


def expit(x: float) -> float:
    """The share whose logit is `x`."""
    return float(special.expit(x))


def summarise_rates(rates: pd.DataFrame) -> pd.DataFrame:
    """For each row of rates, a column a seed: `mean` on the logit scale, and the 95 % Student-t interval there."""
    logits = rates.transform(logit)
    mean, half = logits.mean(axis=1), logits.std(axis=1) * half_width(rates.shape[1])
    return pd.DataFrame({"mean": mean, "ci_low": mean - half, "ci_high": mean + half}).transform(special.expit)


def counts(values: Sequence[float] | Array) -> Counts:
    """Shares that are counts of at most 100,000 cases as whole numbers, over their least common denominator.

    Shares that are no such counts come in billionths.
    """
    fractions = [Fraction(float(value)).limit_denominator(100_000) for value in values]
    common = math.lcm(*(each.denominator for each in fractions)) if fractions else 1
    if common > 10**6:
        return np.rint(np.asarray(values, dtype=float) * 1e9).astype(np.int64)
    return np.array([int(each * common) for each in fractions], dtype=np.int64)


def sign_flip(x: Array | Counts) -> float:
    """Exact two-sided p-value of the mean of differences `x` (n,) being 0: all 2^n flips of signs (Fisher 1935).

    Whole numbers have no rounding, so that ties count as ties. Of more than 16 differences, 2^16 random flips.
    """
    n = len(x)
    if n < 2:
        return math.nan
    if n <= EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(0).choice([-1, 1], size=(2**EXACT, n))
        signs[0] = 1
    sums, own = signs @ x, x.sum()
    close = 0 if x.dtype.kind == "i" else 1e-12 * np.abs(x).sum()
    above, below = np.mean(sums >= own - close), np.mean(sums <= own + close)
    return float(min(1.0, 2 * min(above, below)))


def predicted(own: Summary, level: float = LEVEL) -> tuple[float, float]:
    """Where one further seed lies, but for a share `level` of cases: Student's prediction interval."""
    half = half_width(own.n_seeds, level) * own.std * (own.n_seeds + 1) ** 0.5
    return own.mean - half, own.mean + half


def outlying(own: Summary, low: float, high: float) -> float:
    """The level whose prediction interval ends where a number known to lie in [low, high] begins; 1 if they overlap."""
    distance = max(low - own.mean, own.mean - high, 0.0)
    return _tail(distance, own.std * (1 + 1 / own.n_seeds) ** 0.5, own.n_seeds - 1)


def holm_levels(p: Sequence[float]) -> list[float]:
    """The level of each test's interval by Holm's step-down correction (1979); NaN counts as a test.

    The test of the smallest p-value has `LEVEL` / n. While each is below its level, the next has `LEVEL` over the
    number that is left; from the first that is not, all that follow have the same. So a test whose p-value is below its
    level is one that Holm rejects, and its interval says so.
    """
    order = sorted(range(len(p)), key=lambda i: (math.isnan(p[i]), p[i]))
    levels, left, going = [math.nan] * len(p), len(p), True
    for i in order:
        levels[i] = LEVEL / left
        going = going and p[i] <= levels[i]
        left -= going
    return levels
