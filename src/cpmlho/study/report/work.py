"""What a method has reached after how much work."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cpmlho.study.methods import METHODS
from cpmlho.study.report.frame import Study, by_method
from cpmlho.study.report.stats import Array
from cpmlho.study.results import HISTORY

POINTS = 200  # of a curve


def evaluations(study: Study) -> pd.DataFrame:
    """Each finished run's evaluations: epoch, step, seconds and gradients so far, val_loss, and the best of it so far.

    Raises:
        ResultError: a run has no history.
    """
    rows = study.along(HISTORY, study.finished)
    if rows.empty:
        return pd.DataFrame(columns=["dataset", "method", "seed", "epoch", "val_loss", "gradients", "best"])
    specs = [study.spec(*key[:2]) for key in by_method(rows)]
    cost = {(spec.dataset, spec.method): METHODS[spec.algorithm].gradients(spec.settings) for spec in specs}
    each = pd.Series(list(zip(rows["dataset"], rows["method"], strict=True)), index=rows.index).map(cost)
    best = rows.groupby(["dataset", "method", "seed"], sort=False)["val_loss"].cummin()
    return rows.assign(gradients=rows["step"] * each, best=best)


def anytime(evaluated: pd.DataFrame, work: str) -> pd.DataFrame:
    """Best loss so far of one method against work: the median over seeds and the quartiles, from where all have one.

    Args:
        evaluated: rows of `evaluations` of one dataset and method.
        work: `seconds` or `gradients`.
    """
    seeds = [(each[work].to_numpy(), each["best"].to_numpy()) for _, each in evaluated.groupby("seed")]
    first, last = max(x[0] for x, _ in seeds), max(x[-1] for x, _ in seeds)
    grid: Array = np.geomspace(first, last, POINTS) if last > first else np.array([first])
    grid[0], grid[-1] = first, last  # whatever geomspace has rounded
    best = np.stack([y[np.searchsorted(x, grid, side="right") - 1] for x, y in seeds])
    low, median, high = np.quantile(best, [0.25, 0.5, 0.75], axis=0)
    return pd.DataFrame({work: grid, "median": median, "low": low, "high": high, "n_seeds": len(seeds)})
