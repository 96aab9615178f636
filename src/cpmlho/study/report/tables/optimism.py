"""Validation beside test loss of each method: what selection on the validation split has made too good."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from cpmlho.study.report.frame import LOSS, Study, by_method, finished
from cpmlho.study.report.render import Grid, interval_of, listed, method_of, number
from cpmlho.study.report.stats import summarise
from cpmlho.study.report.tables import Table

CAPTION = (
    "Selection is on the validation split alone. The two splits differ in difficulty; that a gap is wider than that"
    " of training without tuning is the optimism of the validation number."
)


def numbers(study: Study) -> pd.DataFrame:
    """A row for each dataset and method; the gap is test minus validation."""
    rows = list(_rows(study))
    return pd.DataFrame(rows, columns=None if rows else ["dataset"])


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    for dataset, method, runs in by_method(finished(study.compared)):
        validation, test = runs[LOSS], runs["final_test_loss"]
        means = {"val_loss": validation.mean(), "test_loss": test.mean()}
        yield {"dataset": dataset, "method": method, **means, **summarise(test - validation).named("gap")}


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
    return listed(study.protocol, "Validation and test", columns, frame, CAPTION)


TABLE = Table(numbers, view)
