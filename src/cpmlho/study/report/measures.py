"""What the claims measure along a run rather than at its end."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cpmlho.study.protocol import Protocol, RunKey
from cpmlho.study.report.aggregate import finished
from cpmlho.study.results import HISTORY, HYPERPARAMETERS, read_rows, run_dir

TOLERANCE = 0.01  # of a dropout rate that has settled
RATES = ["dropout0", "dropout1", "dropout2"]


def settled(rates: pd.DataFrame) -> int:
    """The first row from which every rate stays within `TOLERANCE` of its last value; a column a rate."""
    away = (rates - rates.iloc[-1]).abs().gt(TOLERANCE).any(axis=1).to_numpy()
    return int(np.flatnonzero(away)[-1]) + 1 if away.any() else 0


def retreat(rate: pd.Series) -> float:
    """The largest move of a rate against the direction from its start to its end."""
    ahead = rate.to_numpy() * np.sign(rate.iloc[-1] - rate.iloc[0])
    return float((np.maximum.accumulate(ahead) - ahead).max())


def rows_of(protocol: Protocol, key: RunKey, file: str) -> pd.DataFrame:
    """One of a run's tables."""
    return pd.DataFrame(read_rows(run_dir(protocol.results_dir, key) / file))


def measured(protocol: Protocol, runs: pd.DataFrame) -> pd.DataFrame:
    """The finished runs, with `settled`, `retreat` of dropout0 and `course_val_loss` of those that tune in training."""
    done = finished(runs).copy()
    for name in ("settled", "retreat", "course_val_loss"):
        done[name] = float("nan")
    tuning = done[done["algorithm"].isin(["delta_stn", "cpmlho"])]
    for index, dataset, method, seed in tuning[["dataset", "method", "seed"]].itertuples():
        key = RunKey(dataset, method, seed)
        path = rows_of(protocol, key, HYPERPARAMETERS).set_index("update")
        done.loc[index, "settled"] = settled(path[RATES])
        done.loc[index, "retreat"] = retreat(path["dropout0"])
        done.loc[index, "course_val_loss"] = rows_of(protocol, key, HISTORY)["val_loss"].mean()
    return done
