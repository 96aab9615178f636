"""What the claims measure along a run rather than at its end."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cpmlho.study.report.along import KEY
from cpmlho.study.report.frame import Study
from cpmlho.study.results import HISTORY, HYPERPARAMETERS

MEASURED = ("share_by_200", "moved_by_200", "retreat", "course_val_loss")
UPDATE = 200  # by which the paper has CPMLHO's hyperparameters at their best


def way(rates: pd.DataFrame, update: int = UPDATE) -> tuple[float, float]:
    """The way of the rates by an update: its share of the whole, and its length; NaN where they end before.

    Args:
        rates: a column a rate, a row an update from 0 on.
        update: by which.

    Returns:
        1 minus the distance from the end over that of the start from the end, both summed over the rates, and the
        distance from the start on the mean over the rates.
    """
    if len(rates) <= update or not len(rates.columns):
        return float("nan"), float("nan")
    start, then, end = (rates.iloc[row].to_numpy(dtype=float) for row in (0, update, -1))
    whole = np.abs(start - end).sum()
    share = 1 - np.abs(then - end).sum() / whole if whole > 0 else float("nan")
    return float(share), float(np.abs(then - start).mean())


def retreat(rate: pd.Series) -> float:
    """The largest move of a rate against the direction from its start to its end."""
    ahead = rate.to_numpy() * np.sign(rate.iloc[-1] - rate.iloc[0])
    return float((np.maximum.accumulate(ahead) - ahead).max())


def measured(study: Study, methods: set[str]) -> pd.DataFrame:
    """The finished runs, with the measures along those of some methods: all of `MEASURED`.

    Raises:
        ResultError: a run lacks one of its tables.
    """
    done = study.finished
    tuning = done[done["method"].isin(methods)]
    losses, paths = (
        dict(iter(study.along(file, tuning).groupby(KEY, sort=False))) for file in (HISTORY, HYPERPARAMETERS)
    )
    rows = [(*key, *_moves(path), losses[key]["val_loss"].mean()) for key, path in paths.items()]
    return done.merge(pd.DataFrame(rows, columns=[*KEY, *MEASURED]), how="left", on=KEY)


def _moves(path: pd.DataFrame) -> tuple[float, float, float]:
    rates = path.filter(regex="^dropout").dropna(axis=1)  # of this dataset
    return *way(rates), retreat(rates["dropout0"]) if "dropout0" in rates else float("nan")
