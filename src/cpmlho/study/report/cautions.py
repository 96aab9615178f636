"""What must be said of runs that are unlike each other, or unlike what the protocol asks for."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from cpmlho.study.report.frame import MISSING

FEW = 3  # names that a caution has room for

# The runs of one dataset are compared with each other; they should agree in these columns.
_SHARED = {
    "precision": "precision",
    "device": "device",
    "processor": "processors",
    "versions_digest": "library versions",
    "data_digest": "data checksums",
}
_UNLIKE_THE_PRESENT = {
    "stale": "with other settings than the protocol's",
    "outdated": "by other code than the present",
}


class Caution(NamedTuple):
    """What must be said of some runs, and which they are where the text only counts them."""

    text: str
    runs: list[str]


def cautions(runs: pd.DataFrame) -> list[Caution]:
    """What makes the runs of a dataset unlike each other, or unlike what the protocol asks for; one line each."""
    found = []
    there = runs.loc[runs["status"] != MISSING, ["dataset", "method", "seed", *_SHARED, *_UNLIKE_THE_PRESENT]]
    for dataset, group in there.groupby("dataset", sort=False):
        for column, name in _SHARED.items():
            counts = group[column].value_counts().sort_index()
            if len(counts) > 1:
                values = ", ".join(f"{value} ({count})" for value, count in counts.items())
                found.append(Caution(f"{dataset}: runs of different {name} are compared: {values}", []))
        for column, said in _UNLIKE_THE_PRESENT.items():
            runs_so = [
                name for method, own in group.groupby("method", sort=False) for name in _named(method, own, column)
            ]
            if len(runs_so) > FEW:
                marked = group[group[column]]
                count = f"{len(marked)} of {len(group)} runs, of {marked['method'].nunique()} methods"
                found.append(Caution(f"{dataset}: made {said}: {count}", runs_so))
            elif runs_so:
                found.append(Caution(f"{dataset}: made {said}: {', '.join(runs_so)}", []))
    return found


def _named(method: object, runs: pd.DataFrame, column: str) -> list[str]:
    """A method's runs that a column marks, or the method itself if all of several are."""
    marked = runs[runs[column]]
    if len(marked) == len(runs) > 1:
        return [f"{method} (all {len(runs)} seeds)"]
    return [f"{method}/seed{seed}" for seed in marked["seed"]]
