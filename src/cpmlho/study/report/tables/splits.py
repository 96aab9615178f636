"""CPMLHO on random splits, each seed with its own, beside the paper's split."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pandas as pd

from cpmlho.study.report.frame import LOSS, Study
from cpmlho.study.report.render import DIFFERENCE, Grid, listed, method_of, number
from cpmlho.study.report.rules import PAPERS, rules
from cpmlho.study.report.stats import pairs, summarise
from cpmlho.study.report.tables import Table

CAPTION = (
    "Final validation loss of CPMLHO minus that of each method, on the last part of the training file, for every seed,"
    " and on random parts, each seed with its own; paired by seed. Spread: the sample standard deviation of the other"
    " method over seeds, on random parts over splits too."
)


def numbers(study: Study) -> pd.DataFrame:
    """A row for each dataset, pair of methods and kind of split, of the pairs that ran on random splits."""
    rows = list(_rows(study))
    return pd.DataFrame(rows, columns=None if rows else ["dataset"])


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    for dataset, runs in study.finished.groupby("dataset", sort=False):
        for reading, other in product(rules().readings, ("fixed", PAPERS, "stn")):
            if other == "stn" and reading.own != other:
                continue
            found = {
                split: pairs(runs, prefix + reading.method, prefix + other, LOSS)
                for split, prefix in rules().splits.items()
            }
            for split, both in found.items():
                if len(both) and len(found["random"]):
                    yield {
                        **{"dataset": dataset, "method": reading.method, "other": other, "split": split},
                        **{"loss": both["theirs"].mean(), "spread": both["theirs"].std()},
                        **summarise(both["ours"] - both["theirs"]).named("difference"),
                    }


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each row."""
    columns = {
        "CPMLHO": method_of("method"),
        "Minus": method_of("other"),
        "Split": lambda row: row["split"],
        "Its loss": lambda row: number(row["loss"]),
        "Spread": lambda row: number(row["spread"]),
        **DIFFERENCE,
    }
    return listed(study.protocol, "Splits", columns, frame, CAPTION)


TABLE = Table(numbers, view)
