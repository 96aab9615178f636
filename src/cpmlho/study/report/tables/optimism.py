"""Validation and test loss of each method: how much the selection on the validation split flatters it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cpmlho.study.report.frame import LOSS, Study, by_method, finished
from cpmlho.study.report.render import evidence, interval_of, method_of, number
from cpmlho.study.report.stats import summarise

CAPTION = (
    "Only the validation split is used for selection. The two splits differ in difficulty; a gap that is wider than the"
    " gap without tuning shows how optimistic the validation loss is."
)


def rows(study: Study) -> Iterator[dict[str, Any]]:
    """A row for each dataset and method; the gap is test minus validation."""
    for dataset, method, runs in by_method(finished(study.compared)):
        yield {
            **{"dataset": dataset, "method": method},
            **{"val_loss": runs[LOSS].mean(), "test_loss": runs["final_test_loss"].mean()},
            **summarise(runs["final_test_loss"] - runs[LOSS]).named("gap"),
        }


COLUMNS = {
    "Method": method_of("method"),
    "Validation loss": lambda row: number(row["val_loss"]),
    "Test loss": lambda row: number(row["test_loss"]),
    "Test minus validation": lambda row: number(row["gap_mean"], sign="+"),
    "95 % interval": interval_of("gap"),
    "n": lambda row: str(row["gap_n_seeds"]),
}


TABLE = evidence("Validation and test", rows, COLUMNS, CAPTION)
