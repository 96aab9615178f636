"""Each method minus Δ-STN at equal training loss, interpolated between two learning rates."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pandas as pd

from cpmlho.study.report.frame import LOSS, Study
from cpmlho.study.report.render import DIFFERENCE, evidence, interval_of, method_of, number
from cpmlho.study.report.rules import PAPERS
from cpmlho.study.report.selection import rates, specs
from cpmlho.study.report.stats import summarise

CAPTION = (
    "Larger steps make more progress in the same number of epochs, so methods are compared at equal training loss. Of"
    " the learning rates that a method ran with, the two are used whose mean training losses lie on either side of"
    " Δ-STN's. For each seed the line through its two runs is read at Δ-STN's training loss of that seed, which a"
    " seed's own two runs need not bracket. Exploratory: no claim is decided by these runs."
)


def rows(study: Study) -> Iterator[dict[str, Any]]:
    """A row for each dataset and method whose rates bracket Δ-STN's training loss."""
    for (dataset, method), asked in rates(specs(study.protocol)).items():
        runs = study.finished[study.finished["dataset"] == dataset]
        train, valid, test = (
            runs.pivot(index="seed", columns="method", values=column)
            for column in ("train_loss", LOSS, "final_test_loss")
        )
        if PAPERS not in train or method == PAPERS:
            continue
        for (low, slow), (high, fast) in pairwise((rate, name) for rate, name in asked.items() if name in train):
            apart = [(train[name] - train[PAPERS]).dropna().mean() for name in (slow, fast)]
            if not apart[0] * apart[1] <= 0:
                continue
            share = (train[PAPERS] - train[slow]) / (train[fast] - train[slow])
            found = (
                summarise((each[slow] + share * (each[fast] - each[slow]) - each[PAPERS]).dropna())
                for each in (valid, test)
            )
            yield {
                **{"dataset": dataset, "method": method, "low_rate": low, "high_rate": high},
                **next(found).named("difference"),
                **next(found).named("test"),
            }
            break


COLUMNS = {
    "Method": method_of("method"),
    "Learning rates": lambda row: f"{row['low_rate']:g} and {row['high_rate']:g}",
    **DIFFERENCE,
    "Test loss": lambda row: number(row["test_mean"], sign="+"),
    "Its interval": interval_of("test"),
}


def _compared(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    methods = {*frame.get("method", ())}
    asked = rates(specs(study.protocol)).items()
    return study.among([PAPERS, *(name for (_, method), own in asked if method in methods for name in own.values())])


TABLE = evidence("Equal training loss", rows, COLUMNS, CAPTION, _compared)
