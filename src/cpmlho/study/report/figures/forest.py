"""CPMLHO minus its own baseline and other methods, a pair of panels for each dataset and reading."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cpmlho.study.report.figures.drawing import GREY
from cpmlho.study.report.frame import LOSS, Study
from cpmlho.study.report.paper import paper_effect
from cpmlho.study.report.rules import PAPERS
from cpmlho.study.report.selection import comparisons, specs
from cpmlho.study.report.stats import paired
from cpmlho.study.report.style import label_of, style_of

SIZE = (5.2, 1.9)  # inches, the height of one reading: narrow enough to be read on a telephone


def data(study: Study) -> pd.DataFrame:
    """A row for each dataset, reading and other method; `own` marks the reading's own baseline.

    The paper compares CPMLHO with Δ-STN, so that difference is the paper's for the own baseline of either reading.
    """
    rows = []
    for dataset, reading, others in comparisons(specs(study.protocol)):
        runs = study.runs[study.runs["dataset"] == dataset]
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
                printed = paper_effect(dataset, "cpmlho", PAPERS if own else other, "val_loss")
                rows.append({**row, **found._asdict(), "n_asked": len(asked), "paper": printed})
    return pd.DataFrame(rows)


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """Rows of readings, columns of datasets; in each the own baseline on an axis of its own, above the others."""
    readings, datasets = list(data["reading"].unique()), list(data["dataset"].unique())
    figure = Figure(figsize=(SIZE[0], SIZE[1] * len(readings)), layout="constrained")
    others = max(int((~data["own"]).groupby([data["dataset"], data["reading"]]).sum().max()), 1)
    grid = figure.subplots(
        2 * len(readings), len(datasets), squeeze=False, gridspec_kw={"height_ratios": [1.3, others] * len(readings)}
    )
    for i, reading in enumerate(readings):
        for j, dataset in enumerate(datasets):
            rows = data[(data["reading"] == reading) & (data["dataset"] == dataset)]
            above, below = grid[2 * i][j], grid[2 * i + 1][j]
            above.set_title(f"{study.protocol.datasets[dataset].folder}: {reading} CPMLHO", fontsize=9)
            _panel(above, rows[rows["own"]], named=j == 0)
            _panel(below, rows[~rows["own"]], named=j == 0)
    for axes in grid[-1]:
        axes.set_xlabel("difference of validation loss")
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, *, named: bool) -> None:
    """A line for each comparison: band, interval, mean and the paper's difference."""
    if rows.empty:
        axes.set_axis_off()
        return
    for height, row in enumerate(rows.to_dict("records")):
        colour = style_of(row["method"]).colour
        if pd.notna(row["paper"]):
            half = abs(row["paper"]) / 2
            axes.fill_betweenx([height - 0.4, height + 0.4], -half, half, color="0.85", linewidth=0)
            axes.plot(row["paper"], height, "D", markerfacecolor="white", markeredgecolor=GREY, markersize=4.5)
        axes.plot([row["ci_low"], row["ci_high"]], [height, height], color=colour, linewidth=1.4)
        axes.plot(row["mean"], height, "o", color=colour, markersize=4)
        n = row["n_seeds"] if row["n_seeds"] == row["n_asked"] else f"{row['n_seeds']} of {row['n_asked']}"
        axes.text(1.02, height, f"n={n}", transform=axes.get_yaxis_transform(), va="center", fontsize=7, color=GREY)
    names = [f"− {label_of(other)}" for other in rows["other"]]
    axes.set_yticks(range(len(rows)), names if named else [], fontsize=8.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axvline(0, color="0.5", linewidth=0.8, zorder=0.5)
    axes.locator_params(axis="x", nbins=4)
    axes.margins(x=0.08)
    sns.despine(ax=axes)
