"""The step size: each method minus Δ-STN at the learning rate where their training losses end nearest to each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from cpmlho.study.protocol import Protocol
from cpmlho.study.report.frame import LOSS, Study
from cpmlho.study.report.render import DIFFERENCE, Grid, interval_of, listed, method_of, number
from cpmlho.study.report.rules import PAPERS
from cpmlho.study.report.stats import pairs, summarise
from cpmlho.study.report.tables import Table
from cpmlho.study.report.work import alone

CAPTION = (
    "Whoever takes longer steps is further on after the same epochs. So each method is at the learning rate, of those"
    " that it ran with, at which its own training loss at the end, without dropout and cutout, is nearest to Δ-STN's"
    " at the protocol's rate; differences to that Δ-STN, of validation and of test loss, are paired by seed."
    " Exploratory: no claim is decided by them."
)
EVERY = "Every rate that was run, each method minus Δ-STN at the protocol's rate"


def numbers(study: Study) -> pd.DataFrame:
    """A row for each dataset, method and learning rate, of the methods that ran with more than one.

    `nearest` is the rate that counts, and `last` says that it is the lowest or the highest of them, and that at all of
    them the training loss is on the same side of Δ-STN's.
    """
    rows = list(_rows(study))
    return pd.DataFrame(rows, columns=None if rows else ["dataset"])


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    for dataset, runs in study.finished.groupby("dataset", sort=False):
        for method in study.protocol.run.methods:
            found = [
                {"dataset": dataset, "method": method, "rate": rate, "runs": name, **row}
                for rate, name in at_rates(study.protocol, method).items()
                if (row := _against_papers(runs, name))
            ]
            if len(found) > 1:
                nearest = min(found, key=lambda row: abs(row["train_difference"]))
                gaps = [row["train_difference"] for row in found]
                last = nearest in (found[0], found[-1]) and not min(gaps) <= 0 <= max(gaps)
                yield from ({**row, "nearest": row is nearest, "last": row is nearest and last} for row in found)


def at_rates(protocol: Protocol, method: str) -> dict[float, str]:
    """The runs of a method by learning rate, where nothing else is changed."""
    rates = {
        variant.training["learning_rate"]: name
        for name, variant in alone(protocol, "training").items()
        if variant.base == method and list(variant.training) == ["learning_rate"]
    }
    return dict(sorted({**rates, protocol.training.learning_rate: method}.items()))


def _against_papers(runs: pd.DataFrame, name: str) -> dict[str, Any]:
    """Training loss, and the differences to Δ-STN; nothing where no seed of both has its training loss."""
    trained, valid, test = (pairs(runs, name, PAPERS, column) for column in ("train_loss", LOSS, "final_test_loss"))
    if trained.empty:
        return {}
    return {
        **{"train_loss": trained["ours"].mean(), "train_difference": (trained["ours"] - trained["theirs"]).mean()},
        **summarise(valid["ours"] - valid["theirs"]).named("difference"),
        **summarise(test["ours"] - test["theirs"]).named("test"),
    }


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each method at its nearest rate, and one for each rate."""
    columns = {
        "Method": method_of("runs"),
        "Rate": lambda row: f"{row['rate']:g}",
        "Training loss": lambda row: number(row["train_loss"]),
        "Minus Δ-STN's": lambda row: number(row["train_difference"], sign="+"),
        **DIFFERENCE,
        "Of test loss": lambda row: number(row["test_mean"], sign="+"),
        "Its interval": interval_of("test"),
    }
    if frame.empty:
        return listed(study.protocol, "Step size", columns, frame, CAPTION)
    chosen, datasets = matched(frame), study.protocol.datasets
    said = [sentence(datasets[str(name)].folder, rows) for name, rows in chosen.groupby("dataset", sort=False)]
    nearest, every = (study.among([PAPERS, *rows["runs"]]) for rows in (chosen, frame))
    first = listed(study.protocol, "Step size", columns, chosen, " ".join([*said, CAPTION]), nearest)
    return first + listed(study.protocol, "Every rate", columns, frame, f"{EVERY}.", every)


def matched(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of each method but Δ-STN at its nearest rate."""
    return frame[frame["nearest"] & (frame["method"] != PAPERS)] if len(frame) else frame


def sentence(dataset: str, rows: pd.DataFrame) -> str:
    """What a reader keeps of the methods at their nearest rates on one dataset."""
    below, above = (rows["difference_ci_high"] < 0).sum(), (rows["difference_ci_low"] > 0).sum()
    beyond = (
        f"; for {last} of them a nearer rate may lie beyond those that were run" if (last := rows["last"].sum()) else ""
    )
    return (
        f"{dataset}: at the learning rate of the nearest training loss, {below} of {len(rows)} comparisons end"
        f" below Δ-STN's validation loss and {above} above it{beyond}."
    )


TABLE = Table(numbers, view)
