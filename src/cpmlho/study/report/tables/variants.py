"""What each variant changes: its loss minus that of the method that it is a variant of, paired by seed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from cpmlho.study.report.frame import LOSS, Study, finished, incomplete
from cpmlho.study.report.paper import paper_effect
from cpmlho.study.report.render import Grid, Linked, interval, listed, number
from cpmlho.study.report.rules import PAPERS, is_papers_setting
from cpmlho.study.report.stats import FEWEST_SEEDS, pairs, summarise
from cpmlho.study.report.tables import Table

COLUMNS = [
    *("dataset", "variant", "base", "changes", "base_mean", "base_std", "mean"),
    *("difference", "ci_low", "ci_high", "n_seeds", "time_ratio"),
]
CAPTION = (
    "Final validation loss of each variant minus that of its base, paired by seed, with 95 % Student-t intervals, not"
    " corrected for multiple comparisons; fewer than ten seeds are exploratory. SD: of the base's loss over seeds."
    " Equivalent: the whole interval lies within ± half of the difference that the paper prints between CPMLHO and"
    " Δ-STN on that dataset (needs five seeds). Runs that diverged are left out."
)


def numbers(study: Study) -> pd.DataFrame:
    """A row for each dataset and variant that has ended together with its base; without means if each diverged."""
    return pd.DataFrame(list(_rows(study)), columns=COLUMNS)


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    for dataset, every in study.ended.groupby("dataset", sort=False):
        runs = finished(every)
        for name in study.protocol.run.variants:
            variant = study.protocol.variants[name]
            if len(pairs(every, name, variant.base, "seed")):
                losses = pairs(runs, name, variant.base, LOSS)
                seconds = pairs(runs, name, variant.base, "train_cpu_seconds")
                base, difference = summarise(losses["theirs"]), summarise(losses["ours"] - losses["theirs"])
                changes = variant.changes | ({"choices": variant.choices} if variant.choices else {})
                yield {
                    **{"dataset": dataset, "variant": name, "base": variant.base, "changes": json.dumps(changes)},
                    **{"base_mean": base.mean, "base_std": base.std, "mean": losses["ours"].mean()},
                    **{"difference": difference.mean, "ci_low": difference.ci_low, "ci_high": difference.ci_high},
                    **{"n_seeds": difference.n_seeds},
                    "time_ratio": seconds["ours"].sum() / seconds["theirs"].sum() if len(seconds) else math.nan,
                }


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each row."""
    statuses = {key: incomplete(runs) for key, runs in study.runs.groupby(["dataset", "method"])}
    columns = {
        "Variant": lambda row: Linked(row["variant"], f"{row['dataset']}/{row['variant']}"),
        "Base": lambda row: row["base"],
        "Base's loss": lambda row: number(row["base_mean"]),
        "SD": lambda row: number(row["base_std"]),
        "Difference": lambda row: number(row["difference"], sign="+"),
        "95 % interval": lambda row: interval(row["ci_low"], row["ci_high"]),
        "Equivalent": equivalent if is_papers_setting(study.protocol) else lambda row: "–",
        "n": lambda row: statuses[row["dataset"], row["variant"]].removeprefix("n=") or str(row["n_seeds"]),
    }
    return listed(study, "Variants", columns, frame, CAPTION, study.runs)


def equivalent(row: Mapping[Any, Any]) -> str:
    """Whether a variant counts as equivalent to its base; – where that is not asked."""
    printed = paper_effect(row["dataset"], "cpmlho", PAPERS, "val_loss")
    if not printed or row["n_seeds"] < FEWEST_SEEDS:
        return "–"
    return "yes" if max(-row["ci_low"], row["ci_high"]) < abs(printed) / 2 else "no"


TABLE = Table(numbers, view)
