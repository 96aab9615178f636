"""Warnings about runs that differ from each other, or from the protocol, in ways that a comparison should not have."""

from __future__ import annotations

import pandas as pd

from cpmlho.study.report.frame import MISSING

FEW = 3  # runs that a warning names one by one
# The runs of one dataset are compared with each other; they should agree in these columns.
_SHARED = {
    "precision": "precision",
    "device": "device",
    "processor": "processor",
    "versions_digest": "library versions",
    "data_digest": "data checksums",
}


def cautions(runs: pd.DataFrame) -> list[str]:
    """What makes the runs of a dataset unlike each other, or unlike the protocol; a sentence each."""
    found = []
    there = runs[runs["status"] != MISSING]
    for dataset, group in there.groupby("dataset", sort=False):
        for column, name in _SHARED.items():
            counts = group[column].value_counts().sort_index()
            if len(counts) > 1:
                values = ", ".join(f"{value} ({count} runs)" for value, count in counts.items())
                found.append(f"{dataset}: the runs differ in {name}: {values}")
        stale = group[group["stale"]]
        if len(stale):
            which = f"{len(stale)} of {len(group)} runs, of {', '.join(stale['method'].unique())}"
            if len(stale) <= FEW:
                which = ", ".join(f"{row.method}/seed{row.seed}" for row in stale.itertuples())
            found.append(f"{dataset}: made with other settings than the protocol's: {which}")
    return found
