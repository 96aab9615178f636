"""The test loss of every method and variant, with that of training at the values that it found."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cpmlho.study.report.figures.drawing import panels
from cpmlho.study.report.frame import Study
from cpmlho.study.report.selection import outcomes, specs
from cpmlho.study.report.stats import summarise
from cpmlho.study.report.style import style_of

SHIFT = 0.3  # of training at the values found, below the line of the method that found them
AT_VALUES = "#666666"


def data(study: Study) -> pd.DataFrame:
    """A row for each run that has ended, in the order of the lines; a run that diverged has no test loss."""
    ended, rows = study.ended, []
    for spec in outcomes(specs(study.protocol)):
        own = ended[(ended["dataset"] == spec.dataset) & (ended["method"] == spec.method)]
        losses = own.assign(
            line=spec.values_of or spec.method,
            at_values=spec.values_of is not None,
            test_loss=own["final_test_loss"].where(own["status"] == "done"),
        )
        rows.append(losses[["dataset", "line", "method", "at_values", "seed", "test_loss"]])
    return pd.concat(rows, ignore_index=True)


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """A panel for each dataset, a line for each method, the lowest mean first."""
    datasets = list(data["dataset"].unique())
    lines = int(data.groupby("dataset")["line"].nunique().max())
    figure, row = panels([study.folder(name) for name in datasets], 0.7 + 0.24 * lines)
    for axes, dataset in zip(row, datasets, strict=True):
        own = data[data["dataset"] == dataset]
        order = own[~own["at_values"]].groupby("line")["test_loss"].mean().sort_values().index
        for height, line in enumerate(order):
            for (method, at_values), runs in own[own["line"] == line].groupby(["method", "at_values"]):
                colour = AT_VALUES if at_values else style_of(study.algorithm(dataset, str(method))).colour
                _line(axes, height + SHIFT * at_values, runs["test_loss"], colour)
        diverged = own["test_loss"].isna().groupby(own["line"]).sum()
        marks = [f" ({diverged[line]} diverged)" if diverged[line] else "" for line in order]
        axes.set_yticks(range(len(order)), [study.words(line) + mark for line, mark in zip(order, marks, strict=True)])
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.set_xlabel("test loss at the last step")
    return figure


def _line(axes: Axes, y: float, losses: pd.Series[float], colour: str) -> None:
    """A faint dot for each seed, with mean and 95 % interval."""
    found = summarise(losses.dropna())
    axes.plot(losses, np.full(len(losses), y), "o", color=colour, markersize=3, alpha=0.45, markeredgewidth=0)
    axes.plot([found.ci_low, found.ci_high], [y, y], color=colour, linewidth=1.2)
    axes.plot(found.mean, y, "|", color=colour, markersize=8, markeredgewidth=1.8)
