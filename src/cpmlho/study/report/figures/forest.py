"""CPMLHO minus its own baseline and other methods, a pair of panels for each dataset and reading."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from cpmlho.study.report.figures.drawing import GREY
from cpmlho.study.report.frame import LOSS, Study
from cpmlho.study.report.paper import paper_effect
from cpmlho.study.report.rules import PAPERS
from cpmlho.study.report.selection import comparisons, specs
from cpmlho.study.report.stats import paired
from cpmlho.study.report.style import label_of, style_of

SIZE = (3.5, 1.4)  # inches, the height of one pair of panels: narrow enough to be read on a telephone


def data(study: Study) -> pd.DataFrame:
    """A row for each dataset, reading and other method; `own` marks the reading's own baseline.

    The paper compares CPMLHO with Δ-STN, so that difference is the paper's for the own baseline of either reading. Runs
    on a part of the training file have no number of the paper beside them.
    """
    rows = []
    for dataset, reading, others in comparisons(specs(study.protocol)):
        runs = study.runs[study.runs["dataset"] == dataset]
        whole = study.spec(dataset, reading.method).data.examples is None
        done = study.finished[study.finished["dataset"] == dataset]
        for other in others:
            found, own = paired(done, reading.method, other, LOSS), other == reading.own
            asked = set.intersection(
                *(set(runs.loc[runs["method"] == name, "seed"]) for name in (reading.method, other))
            )
            if found.n_seeds:
                row = {
                    "dataset": dataset,
                    "reading": reading.name,
                    "method": reading.method,
                    "other": other,
                    "own": own,
                }
                printed = paper_effect(dataset, "cpmlho", PAPERS if own else other, "val_loss") if whole else None
                rows.append({**row, **found._asdict(), "n_asked": len(asked), "paper": printed})
    return pd.DataFrame(rows)


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """For each reading and dataset the own baseline on an axis of its own, above the other methods."""
    pairs = [rows for _, rows in data.groupby(["reading", "dataset"], sort=False)]
    others = max(int((~rows["own"]).sum()) for rows in pairs)
    layout = ConstrainedLayoutEngine(h_pad=0.02, hspace=0.02)
    figure = Figure(figsize=(SIZE[0], SIZE[1] * len(pairs)), layout=layout)
    ratios = {"height_ratios": [1.3, max(others, 1)] * len(pairs)}
    grid = figure.subplots(2 * len(pairs), 1, squeeze=False, gridspec_kw=ratios)[:, 0]
    for above, below, rows in zip(grid[::2], grid[1::2], pairs, strict=True):
        dataset, reading = rows[["dataset", "reading"]].iloc[0]
        above.set_title(f"{study.protocol.datasets[dataset].folder}: {reading} CPMLHO", fontweight="bold")
        _panel(above, rows[rows["own"]])
        _panel(below, rows[~rows["own"]])
    grid[-1].set_xlabel("difference of validation loss")
    return figure


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
    """A line for each comparison: band, interval, mean and the paper's difference."""
    if rows.empty:
        axes.set_axis_off()
        return
    for height, row in enumerate(rows.to_dict("records")):
        colour = style_of(row["method"]).colour
        if pd.notna(row["paper"]):
            half = abs(row["paper"]) / 2
            axes.fill_betweenx([height - 0.4, height + 0.4], -half, half, color="0.85", linewidth=0, zorder=0.4)
            axes.plot(row["paper"], height, "D", markerfacecolor="white", markeredgecolor=GREY, markersize=4.5)
        axes.plot([row["ci_low"], row["ci_high"]], [height, height], color=colour, linewidth=1.4)
        axes.plot(row["mean"], height, "o", color=colour, markersize=4)
        n = row["n_seeds"] if row["n_seeds"] == row["n_asked"] else f"{row['n_seeds']} of {row['n_asked']}"
        axes.text(1.02, height, f"n={n}", transform=axes.get_yaxis_transform(), va="center", fontsize=7, color=GREY)
    names = [f"− {label_of(other)}" for other in rows["other"]]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axvline(0, color="0.5", linewidth=0.8, zorder=0.5)
    axes.locator_params(axis="x", nbins=4)
    axes.margins(x=0.08)
    sns.despine(ax=axes)
