"""How often a method diverged, by the processor that ran it."""

from __future__ import annotations

import pandas as pd

from cpmlho.study.report.frame import Study, framed
from cpmlho.study.report.render import Grid, listed, method_of
from cpmlho.study.report.tables import Table

CAPTION = (
    "Runs that diverged, by processor, of the methods of which one diverged. A run has diverged if its loss is not"
    " finite, or if the distance g between the weights, which the cutting planes bound, exceeds 1.5 times its first"
    " value in a layer."
)


def numbers(study: Study) -> pd.DataFrame:
    """A row for each dataset, method and processor; equal settings have the same digest, also in another protocol."""
    return framed(
        {
            **{"dataset": dataset, "method": method, "processor": processor},
            **{"diverged": int((runs["status"] == "diverged").sum()), "runs": len(runs)},
            "settings_digest": runs["settings_digest"].iloc[0],
        }
        for (dataset, method, processor), runs in study.ended.groupby(["dataset", "method", "processor"], sort=False)
    )


def joined(own: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The rows of a protocol, with runs of the same settings in another protocol on other processors added."""
    if own.empty or other.empty:
        return own
    names = own.drop_duplicates("settings_digest").set_index("settings_digest")["method"]
    known = own[["settings_digest", "processor"]].apply(tuple, axis=1)
    further = other[other["settings_digest"].isin(names.index)]
    further = further[~further[["settings_digest", "processor"]].apply(tuple, axis=1).isin(known)]
    return pd.concat([own, further.assign(method=further["settings_digest"].map(names))], ignore_index=True)


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each processor of a method that diverged somewhere."""
    columns = {
        "Method": method_of("method"),
        "Processor": lambda row: row["processor"],
        "Diverged": lambda row: f"{row['diverged']} of {row['runs']}",
    }
    if len(frame):
        frame = frame[frame.groupby(["dataset", "method"])["diverged"].transform("sum") > 0]
    return listed(study, "Divergence", columns, frame, CAPTION)


TABLE = Table(numbers, view)
