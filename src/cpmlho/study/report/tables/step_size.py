"""Each method at every learning rate that it ran with, minus Δ-STN at the protocol's rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from cpmlho.study.report.frame import LOSS, Study
from cpmlho.study.report.render import DIFFERENCE, evidence, interval_of, method_of, number
from cpmlho.study.report.rules import PAPERS
from cpmlho.study.report.selection import rates, specs
from cpmlho.study.report.stats import paired, pairs

CAPTION = (
    "Losses at the end, each method minus Δ-STN at the protocol's learning rate, paired by seed. The training loss is"
    " measured without dropout and cutout. Exploratory: no claim is decided by these runs."
)


def rows(study: Study) -> Iterator[dict[str, Any]]:
    """A row for each dataset, method and learning rate, of the methods that ran with more than one."""
    for (dataset, method), asked in rates(specs(study.protocol)).items():
        runs = study.finished[study.finished["dataset"] == dataset]
        found = [
            {"dataset": dataset, "method": method, "rate": rate, "runs": name, **row}
            for rate, name in asked.items()
            if (row := _against_papers(runs, name))
        ]
        if len(found) > 1:
            yield from found


def _against_papers(runs: pd.DataFrame, name: str) -> dict[str, Any]:
    """Training loss, and the differences to Δ-STN; nothing where no seed of both has its training loss."""
    trained = pairs(runs, name, PAPERS, "train_loss")
    if trained.empty:
        return {}
    return {
        **{"train_loss": trained["ours"].mean(), "train_difference": (trained["ours"] - trained["theirs"]).mean()},
        **paired(runs, name, PAPERS, LOSS).named("difference"),
        **paired(runs, name, PAPERS, "final_test_loss").named("test"),
    }


COLUMNS = {
    "Method": method_of("runs"),
    "Learning rate": lambda row: f"{row['rate']:g}",
    "Training loss": lambda row: number(row["train_loss"]),
    "Minus Δ-STN's": lambda row: number(row["train_difference"], sign="+"),
    **DIFFERENCE,
    "Test loss": lambda row: number(row["test_mean"], sign="+"),
    "Its interval": interval_of("test"),
}


TABLE = evidence(
    "Step size", rows, COLUMNS, CAPTION, lambda study, frame: study.among([PAPERS, *frame.get("runs", ())])
)
