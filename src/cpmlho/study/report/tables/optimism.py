"""Validation and test loss of each method: how much the selection on the validation split flatters it."""

from __future__ import annotations

import pandas as pd

from cpmlho.study.report.frame import LOSS, Study, by_method, finished, framed
from cpmlho.study.report.render import Grid, interval_of, listed, method_of, number
from cpmlho.study.report.stats import summarise
from cpmlho.study.report.tables import Table

CAPTION = (
    "Only the validation split is used for selection. The two splits differ in difficulty; a gap that is wider than the"
    " gap without tuning shows how optimistic the validation loss is."
)


def numbers(study: Study) -> pd.DataFrame:
    """A row for each dataset and method; the gap is test minus validation."""
    return framed(
        {
            **{"dataset": dataset, "method": method},
            **{"val_loss": runs[LOSS].mean(), "test_loss": runs["final_test_loss"].mean()},
            **summarise(runs["final_test_loss"] - runs[LOSS]).named("gap"),
        }
        for dataset, method, runs in by_method(finished(study.compared))
    )


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each row."""
    columns = {
        "Method": method_of("method"),
        "Validation loss": lambda row: number(row["val_loss"]),
        "Test loss": lambda row: number(row["test_loss"]),
        "Test minus validation": lambda row: number(row["gap_mean"], sign="+"),
        "95 % interval": interval_of("gap"),
        "n": lambda row: str(row["gap_n_seeds"]),
    }
    return listed(study, "Validation and test", columns, frame, CAPTION)


TABLE = Table(numbers, view)
