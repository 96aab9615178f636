"""Training anew at the values that a method ended at, against the run that found them, paired by seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from cpmlho.study.report.frame import LOSS, Study, by_method
from cpmlho.study.report.render import DIFFERENCE, Grid, listed, mean_of, method_of
from cpmlho.study.report.stats import pairs, summarise
from cpmlho.study.report.tables import Table

CAPTION = (
    "Final validation loss of a run that tunes, and of training from the same initialisation with the values that"
    " it ended at held fixed; anew minus tuned, paired by seed."
)


def numbers(study: Study) -> pd.DataFrame:
    """A row for each dataset and method that takes another's values."""
    rows = list(_rows(study))
    return pd.DataFrame(rows, columns=None if rows else ["dataset"])


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    for dataset, method, _ in by_method(study.runs):
        source = study.spec(dataset, method).values_of
        runs = study.finished[study.finished["dataset"] == dataset]
        if source and len(both := pairs(runs, method, source, LOSS)):
            yield {
                **{"dataset": dataset, "source": source, "retrained": method},
                **summarise(both["theirs"]).named("tuned"),
                **summarise(both["ours"]).named("retrained"),
                **summarise(both["ours"] - both["theirs"]).named("difference"),
            }


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each row."""
    columns = {
        "Values of": method_of("source"),
        "As tuned": mean_of("tuned"),
        "Trained anew": mean_of("retrained"),
        **DIFFERENCE,
    }
    return listed(study.protocol, "Transfer", columns, frame, CAPTION)


TABLE = Table(numbers, view)
