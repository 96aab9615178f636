"""CPMLHO minus other methods on random splits, one split per seed, and on the paper's split."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pandas as pd

from cpmlho.study.report.frame import LOSS, Study
from cpmlho.study.report.render import Column, evidence, interval_of, method_of, number
from cpmlho.study.report.rules import PAPERS, rules
from cpmlho.study.report.stats import paired, pairs

CAPTION = (
    "Final validation loss minus that of another method, paired by seed, with 95 % Student-t intervals: on the last"
    " part of the training file, which is the same for every seed, and on random parts, one per seed. SD: standard"
    " deviation of the other method's loss over seeds (over splits and seeds for random parts). Test: the same"
    " difference in test loss."
)


def rows(study: Study) -> Iterator[dict[str, Any]]:
    """A row for each dataset and pair of methods that ran on random splits; `last` and `random` side by side."""
    ours = {reading.method: ("fixed", PAPERS, reading.own) for reading in rules().readings} | {PAPERS: ("fixed",)}
    for dataset, runs in study.finished.groupby("dataset", sort=False):
        for method, others in ours.items():
            for other in dict.fromkeys(others):
                sides = {split: _side(runs, prefix, method, other) for split, prefix in rules().splits.items()}
                if sides["random"]["difference_n_seeds"]:
                    named = {f"{split}_{name}": value for split, side in sides.items() for name, value in side.items()}
                    yield {"dataset": dataset, "method": method, "other": other, **named}


def _side(runs: pd.DataFrame, prefix: str, method: str, other: str) -> dict[str, Any]:
    """The two methods on one kind of split; the names of its runs begin with the prefix."""
    ours, theirs = prefix + method, prefix + other
    return {
        **paired(runs, ours, theirs, LOSS).named("difference"),
        **paired(runs, ours, theirs, "final_test_loss").named("test"),
        "sd": pairs(runs, ours, theirs, LOSS)["theirs"].std(),
    }


def _columns(split: str) -> dict[str, Column]:
    return {
        f"On the {split} split": lambda row: number(row[f"{split}_difference_mean"], sign="+"),
        f"95 % interval, {split}": interval_of(f"{split}_difference"),
        f"Test, {split}": lambda row: number(row[f"{split}_test_mean"], sign="+"),
        f"SD, {split}": lambda row: number(row[f"{split}_sd"]),
        f"n, {split}": lambda row: str(row[f"{split}_difference_n_seeds"]),
    }


def _compared(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    roles = [*frame.get("method", ()), *frame.get("other", ())]
    return study.among(prefix + role for prefix, role in product(rules().splits.values(), roles))


COLUMNS = {"Method": method_of("method"), "Minus": method_of("other"), **_columns("last"), **_columns("random")}
TABLE = evidence("Splits", rows, COLUMNS, CAPTION, _compared)
