"""What the claims measure along a run rather than at its end."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cpmlho.study.report.frame import KEY, Study
from cpmlho.study.results import HISTORY, HYPERPARAMETERS

MEASURED = ("settled", "retreat", "course_val_loss")
TOLERANCE = 0.01  # of a dropout rate that has settled


def settled(rates: pd.DataFrame) -> int:
    """The first row from which every rate stays within `TOLERANCE` of its last value; a column a rate."""
    away = (rates - rates.iloc[-1]).abs().gt(TOLERANCE).any(axis=1).to_numpy()
    return int(np.flatnonzero(away)[-1]) + 1 if away.any() else 0


def retreat(rate: pd.Series) -> float:
    """The largest move of a rate against the direction from its start to its end."""
    ahead = rate.to_numpy() * np.sign(rate.iloc[-1] - rate.iloc[0])
    return float((np.maximum.accumulate(ahead) - ahead).max())


def measured(study: Study) -> pd.DataFrame:
    """The finished runs, with `settled`, `retreat` of dropout0 and `course_val_loss` of those that tune in training.

    Raises:
        ResultError: a run lacks one of its tables.
    """
    done = study.finished
    tuning = done[done["algorithm"].isin(["delta_stn", "cpmlho"])]
    losses, paths = (
        dict(iter(study.along(file, tuning).groupby(KEY, sort=False))) for file in (HISTORY, HYPERPARAMETERS)
    )
    rows = [
        {**dict(zip(KEY, key, strict=True)), **_moves(path), "course_val_loss": losses[key]["val_loss"].mean()}
        for key, path in paths.items()
    ]
    return done.merge(pd.DataFrame(rows, columns=[*KEY, *MEASURED]), how="left", on=KEY)


def _moves(path: pd.DataFrame) -> dict[str, float]:
    rates = path.filter(regex="^dropout").dropna(axis=1)  # of this dataset
    return {
        "settled": settled(rates) if len(rates.columns) else float("nan"),
        "retreat": retreat(rates["dropout0"]) if "dropout0" in rates else float("nan"),
    }
