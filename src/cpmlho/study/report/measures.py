"""What the claims measure along a run rather than at its end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from cpmlho.study.report.along import KEY
from cpmlho.study.report.frame import Study
from cpmlho.study.report.stats import Array, logit
from cpmlho.study.results import HISTORY, HYPERPARAMETERS

STEPS = 200  # by which the paper has CPMLHO's hyperparameters at their best
# How "200 steps" and the distance between rates can be read; the first is the registered one.
COUNTED = {"": "update", "_iterations": "step"}  # by the column of hyperparameters.csv that counts
SCALES: dict[str, Callable[[Array], Array]] = {"": np.asarray, "_logit": logit}
WAYS = [f"{what}_by_200{scale}{counted}" for what in ("share", "moved") for scale in SCALES for counted in COUNTED]
MEASURED = (*WAYS, "retreat", "course_val_loss")


def way(rates: pd.DataFrame, update: int = STEPS) -> tuple[float, float]:
    """How far the rates have come by an update: the share of the whole way, and its length; NaN if they end earlier.

    Args:
        rates: a column per rate, a row per update from 0 on.
        update: by which.

    Returns:
        1 minus the distance from the end over the distance of the start from the end, both summed over the rates, and
        the distance from the start as the mean over the rates.
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
    """The finished runs, with `MEASURED` for those of some methods.

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


def _moves(path: pd.DataFrame) -> tuple[float, ...]:
    rates = path.filter(regex="^dropout").dropna(axis=1)  # of this dataset
    ways = [
        way(pd.DataFrame(scale(rates.to_numpy(dtype=float)), columns=rates.columns), int((path[column] < STEPS).sum()))
        for scale in SCALES.values()
        for column in COUNTED.values()
    ]
    shares, lengths = zip(*ways, strict=True)
    return *shares, *lengths, retreat(rates["dropout0"]) if "dropout0" in rates else float("nan")
