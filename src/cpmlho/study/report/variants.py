"""What each variant changes: the paired difference to the method that it is a variant of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from cpmlho.study.protocol import Protocol
from cpmlho.study.report.aggregate import finished, paired, summarise
from cpmlho.study.report.render import Grid, Line, Linked
from cpmlho.study.report.statistics import FEWEST_SEEDS

LOSS = "final_val_loss"
TITLE = (
    "Final validation loss of each variant against its base, paired by seed. Spread: the sample standard deviation of"
    " the base over seeds; within: whether the whole interval is smaller, so that the variant counts as equivalent (of"
    " five seeds or more). Intervals are 95 % Student-t, each for itself. Time: training's processor seconds over the"
    " base's, means over the same seeds."
)


COLUMNS = (
    *("dataset", "variant", "base", "changes", "base_mean", "base_std", "mean"),
    *("difference", "ci_low", "ci_high", "n_seeds", "time_ratio"),
)


def compare(protocol: Protocol, runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """A row of `COLUMNS` for each dataset and variant whose base the protocol runs too."""
    for dataset, of_dataset in runs.groupby("dataset", sort=False):
        for name in protocol.run.variants:
            variant = protocol.variants[name]
            ours, theirs = (finished(of_dataset[of_dataset["method"] == each]) for each in (name, variant.base))
            seeds = set(ours["seed"]) & set(theirs["seed"])
            if not seeds:
                continue
            ours, theirs = (each[each["seed"].isin(seeds)] for each in (ours, theirs))
            base, difference = summarise(theirs[LOSS]), paired(of_dataset, name, variant.base, LOSS)
            yield {
                "dataset": dataset,
                "variant": name,
                "base": variant.base,
                "changes": json.dumps(variant.model_dump(exclude={"base", "datasets", "seeds"}, exclude_defaults=True)),
                "base_mean": base.mean,
                "base_std": base.std,
                "mean": ours[LOSS].mean(),
                "difference": difference.mean,
                **{column: getattr(difference, column) for column in ("ci_low", "ci_high", "n_seeds")},
                "time_ratio": ours["train_cpu_seconds"].sum() / theirs["train_cpu_seconds"].sum(),
            }


def grid(protocol: Protocol, compared: Sequence[Mapping[str, Any]], cautions: list[str]) -> Grid:
    """The rows as a table to be printed."""

    def interval(row: Mapping[str, Any]) -> list[str]:
        if row["n_seeds"] < 2:
            return ["–", f"{row['difference']:+.4f}", "–", "–"]
        bounds = f"{row['ci_low']:+.4f} to {row['ci_high']:+.4f}"
        within = "yes" if max(-row["ci_low"], row["ci_high"]) < row["base_std"] else "no"
        within = within if row["n_seeds"] >= FEWEST_SEEDS else "–"
        return [f"{row['base_std']:.4f}", f"{row['difference']:+.4f}", bounds, within]

    header = [
        "Dataset",
        "Variant",
        "Base",
        "Base's loss",
        "Spread",
        "Difference",
        "95 % interval",
        "Within",
        "n",
        "Time",
    ]
    rows: list[Line] = [
        [
            protocol.datasets[row["dataset"]].folder,
            Linked(row["variant"], f"{row['dataset']}/{row['variant']}"),
            *(row["base"], f"{row['base_mean']:.4f}"),
            *(*interval(row), str(row["n_seeds"]), f"{row['time_ratio']:.2f}"),
        ]
        for row in compared
    ]
    caption = TITLE if rows else "No variant has been run together with its base."
    return Grid("Variants", header, rows, caption, protocol.note, cautions)
