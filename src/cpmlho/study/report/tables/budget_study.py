"""Each method with more epochs minus Δ-STN with as many, after 1, 3, ... epochs, paired by seed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pandas as pd

from cpmlho.study.report.frame import Study, framed
from cpmlho.study.report.render import DIFFERENCE, Grid, listed, method_of, number
from cpmlho.study.report.stats import pairs, summarise
from cpmlho.study.report.tables import Table
from cpmlho.study.report.work import EPOCHS, evaluations, with_more_epochs

CAPTION = "Validation loss during longer runs: each method minus Δ-STN with the same number of epochs, paired by seed."


def numbers(study: Study) -> pd.DataFrame:
    """A row for each dataset, method and epoch."""
    return framed(_rows(study))


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    reference = with_more_epochs(study.protocol).get("delta_stn", "")
    evaluated = evaluations(study)
    for dataset, of_dataset in evaluated[evaluated["epoch"].isin(EPOCHS)].groupby("dataset", sort=False):
        for method, (epoch, group) in product(_longer(study), of_dataset.groupby("epoch")):
            both = pairs(group, method, reference, "val_loss")
            if len(both) and method != reference:
                yield {
                    **{"dataset": dataset, "method": method, "epoch": epoch},
                    **{"loss": both["ours"].mean(), "delta_stn": both["theirs"].mean()},
                    **summarise(both["ours"] - both["theirs"]).named("difference"),
                }


def _longer(study: Study) -> list[str]:
    """The variants with another number of epochs."""
    variants = study.protocol.variants
    return [name for name in study.protocol.run.variants if variants[name].epochs is not None]


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each row."""
    columns = {
        "Method": method_of("method"),
        "Epochs": lambda row: str(row["epoch"]),
        "Loss": lambda row: number(row["loss"]),
        "Δ-STN's": lambda row: number(row["delta_stn"]),
        **DIFFERENCE,
    }
    long = study.among(_longer(study))
    lost = long[long["status"] == "diverged"]["method"].unique()
    caption = f"{CAPTION} Left out, as they diverged: {', '.join(lost)}." if len(lost) else CAPTION
    return listed(study, "Budget study", columns, frame, caption)


TABLE = Table(numbers, view)
