"""Each method minus Δ-STN at equal training loss, interpolated between two learning rates."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pandas as pd

from cpmlho.study.report.frame import LOSS, Study
from cpmlho.study.report.render import DIFFERENCE, evidence, interval_of, method_of, number
from cpmlho.study.report.rules import PAPERS
from cpmlho.study.report.stats import summarise
from cpmlho.study.report.tables.step_size import at_rates

CAPTION = (
    "Larger steps make more progress in the same number of epochs, so methods are compared at equal training loss. Of"
    " the learning rates that a method ran with, the two are used whose mean training losses lie on either side of"
    " Δ-STN's. For each seed the line through its two runs is read at Δ-STN's training loss of that seed, which a"
    " seed's own two runs need not bracket. Exploratory: no claim is decided by these runs."
)


def rows(study: Study) -> Iterator[dict[str, Any]]:
    """A row for each dataset and method whose rates bracket Δ-STN's training loss."""
    for dataset, runs in study.finished.groupby("dataset", sort=False):
        train, valid, test = (
            runs.pivot(index="seed", columns="method", values=column)
            for column in ("train_loss", LOSS, "final_test_loss")
        )
        if PAPERS not in train:
            continue
        for method in study.protocol.run.methods:
            rates = {rate: name for rate, name in at_rates(study.protocol, method).items() if name in train}
            for (low, slow), (high, fast) in pairwise(rates.items()):
                apart = [(train[name] - train[PAPERS]).dropna().mean() for name in (slow, fast)]
                if method == PAPERS or not apart[0] * apart[1] <= 0:
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
    used = [name for method in frame.get("method", ()) for name in at_rates(study.protocol, method).values()]
    return study.among([PAPERS, *used])


TABLE = evidence("Equal training loss", rows, COLUMNS, CAPTION, _compared)
