"""What each variant changes: the paired difference to the method that it is a variant of."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from cpmlho.study.report.cautions import cautions
from cpmlho.study.report.frame import LOSS, MISSING, Study, finished, incomplete
from cpmlho.study.report.paper import paper_effect
from cpmlho.study.report.render import Grid, Line, Linked, interval, number
from cpmlho.study.report.stats import FEWEST_SEEDS, pairs, summarise
from cpmlho.study.report.tables import Table

COLUMNS = [
    *("dataset", "variant", "base", "changes", "base_mean", "base_std", "mean"),
    *("difference", "ci_low", "ci_high", "n_seeds", "time_ratio"),
]
CAPTION = (
    "Final validation loss of each variant against its base, paired by seed. Spread: the sample standard deviation of"
    " the base over seeds; within: whether the whole interval lies within ± half of the difference that the paper"
    " prints between CPMLHO and Δ-STN on that dataset, so that the variant counts as equivalent (of five seeds or"
    " more). Intervals are 95 % Student-t, each for itself; what rests on fewer than ten seeds is exploratory. Time:"
    " training's processor seconds over the base's, means over the same seeds. Runs that diverged are in no mean."
)
HEADER = [
    *("Dataset", "Variant", "Base", "Base's loss", "Spread", "Difference", "95 % interval", "Within", "n", "Time"),
]


def numbers(study: Study) -> pd.DataFrame:
    """A row for each dataset and variant that has ended together with its base; without means if each diverged."""
    return pd.DataFrame(list(_rows(study)), columns=COLUMNS)


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    ended = study.runs[study.runs["status"] != MISSING]
    for dataset, every in ended.groupby("dataset", sort=False):
        runs = finished(every)
        for name in study.protocol.run.variants:
            variant = study.protocol.variants[name]
            if len(pairs(every, name, variant.base, "seed")):
                losses = pairs(runs, name, variant.base, LOSS)
                seconds = pairs(runs, name, variant.base, "train_cpu_seconds")
                base, difference = summarise(losses["theirs"]), summarise(losses["ours"] - losses["theirs"])
                changes = variant.model_dump(exclude={"base", "datasets", "seeds"}, exclude_defaults=True)
                yield {
                    **{"dataset": dataset, "variant": name, "base": variant.base, "changes": json.dumps(changes)},
                    **{"base_mean": base.mean, "base_std": base.std, "mean": losses["ours"].mean()},
                    **{"difference": difference.mean, "ci_low": difference.ci_low, "ci_high": difference.ci_high},
                    **{"n_seeds": difference.n_seeds},
                    "time_ratio": seconds["ours"].sum() / seconds["theirs"].sum() if len(seconds) else math.nan,
                }


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each row."""
    lines: list[Line] = []
    for row in frame.to_dict("records"):
        variant = Linked(row["variant"], f"{row['dataset']}/{row['variant']}")
        base = [row["base"], number(row["base_mean"])]
        runs = study.runs[(study.runs["dataset"] == row["dataset"]) & (study.runs["method"] == row["variant"])]
        counts = [incomplete(runs).removeprefix("n=") or str(row["n_seeds"]), number(row["time_ratio"], 2)]
        folder = study.protocol.datasets[row["dataset"]].folder
        lines.append([folder, variant, *base, *_difference(row), *counts])
    caption = CAPTION if lines else "No variant has been run together with its base."
    return [Grid("Variants", HEADER, lines, caption, study.protocol.note, cautions(study.runs))]


def _difference(row: Mapping[Any, Any]) -> list[str]:
    """Spread, difference, interval, and whether the interval lies within the spread."""
    difference = number(row["difference"], sign="+")
    if row["n_seeds"] < 2:
        return ["–", difference, "–", "–"]
    printed = paper_effect(row["dataset"], "cpmlho", "delta_stn", "val_loss")
    within = "–"
    if printed and row["n_seeds"] >= FEWEST_SEEDS:
        within = "yes" if max(-row["ci_low"], row["ci_high"]) < abs(printed) / 2 else "no"
    return [f"{row['base_std']:.4f}", difference, interval(row["ci_low"], row["ci_high"]), within]


TABLE = Table(numbers, view)
