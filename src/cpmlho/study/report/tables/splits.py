"""CPMLHO on random splits, each seed with its own, beside the paper's split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pandas as pd

from cpmlho.study.report.frame import LOSS, Study
from cpmlho.study.report.render import Column, Grid, interval_of, listed, method_of, number
from cpmlho.study.report.rules import PAPERS, rules
from cpmlho.study.report.stats import pairs, summarise
from cpmlho.study.report.tables import Table

CAPTION = (
    "Final validation loss of CPMLHO minus that of each method, paired by seed, with 95 % Student-t intervals, on the"
    " last part of the training file, which is the same for every seed, and on random parts, each seed with its own."
    " SD: of the other method's loss, over seeds on the last part, over splits and seeds on random ones. A difference"
    " in test loss is of the same runs."
)


def numbers(study: Study) -> pd.DataFrame:
    """A row for each dataset and pair of methods that ran on random splits; `last` and `random` side by side."""
    rows = list(_rows(study))
    return pd.DataFrame(rows, columns=None if rows else ["dataset"])


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    for dataset, runs in study.finished.groupby("dataset", sort=False):
        for reading, other in product(rules().readings, ("fixed", PAPERS, "stn")):
            sides = {split: _side(runs, prefix, reading.method, other) for split, prefix in rules().splits.items()}
            if other in ("fixed", PAPERS, reading.own) and sides["random"]["difference_n_seeds"]:
                named = {f"{split}_{name}": value for split, side in sides.items() for name, value in side.items()}
                yield {"dataset": dataset, "method": reading.method, "other": other, **named}


def _side(runs: pd.DataFrame, prefix: str, method: str, other: str) -> dict[str, Any]:
    """The two methods on one kind of split, on which the names of the runs begin with the prefix."""
    valid, test = (pairs(runs, prefix + method, prefix + other, column) for column in (LOSS, "final_test_loss"))
    return {
        **summarise(valid["ours"] - valid["theirs"]).named("difference"),
        **summarise(test["ours"] - test["theirs"]).named("test"),
        "sd": valid["theirs"].std(),
    }


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each row, and in the caption what they show."""
    columns = {"CPMLHO": method_of("method"), "Minus": method_of("other")}
    for split in rules().splits:
        columns |= _columns(split)
    datasets = study.protocol.datasets
    said = [sentence(datasets[str(name)].folder, rows) for name, rows in frame.groupby("dataset", sort=False)]
    roles = [*frame.get("method", ()), *frame.get("other", ())]
    compared = study.among(prefix + role for prefix in rules().splits.values() for role in roles)
    return listed(study.protocol, "Splits", columns, frame, " ".join([*said, CAPTION]), compared)


def _columns(split: str) -> dict[str, Column]:
    return {
        f"On the {split} split": lambda row: number(row[f"{split}_difference_mean"], sign="+"),
        f"95 % interval, {split}": interval_of(f"{split}_difference"),
        f"Test, {split}": lambda row: number(row[f"{split}_test_mean"], sign="+"),
        f"SD, {split}": lambda row: number(row[f"{split}_sd"]),
        f"n, {split}": lambda row: str(row[f"{split}_difference_n_seeds"]),
    }


def sentence(dataset: str, rows: pd.DataFrame) -> str:
    """What a reader keeps of the splits on one dataset."""
    last, random = ([_side_of_zero(row, split) for row in rows.to_dict("records")] for split in rules().splits)
    same = sum(one == other for one, other in zip(last, random, strict=True))
    return (
        f"{dataset}: {same} of {len(rows)} differences are on random splits what they are on the last part of the"
        f" training file, below 0, above it or not told from it; on random splits {random.count(-1)} are below 0,"
        f" and {random.count(1)} above."
    )


def _side_of_zero(row: Mapping[Any, Any], split: str) -> int:
    low, high = row[f"{split}_difference_ci_low"], row[f"{split}_difference_ci_high"]
    return int(low > 0) - int(high < 0)


TABLE = Table(numbers, view)
