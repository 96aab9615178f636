"""The step size in one picture: how far each method has come at each learning rate, in training and validation loss."""

from __future__ import annotations

from fractions import Fraction

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cpmlho.study.report.figures import Picture
from cpmlho.study.report.figures.drawing import PAGE, blank, explain
from cpmlho.study.report.frame import Study
from cpmlho.study.report.style import style_of

EXPLANATION = (
    "Losses at the end minus Δ-STN's at the protocol's rate, paired by seed: mean, and 95 % Student-t interval of the"
    " validation loss; beside each point its learning rate, in units of the protocol's. Where methods lie on one curve,"
    " they differ only in how far they have come; of two, the lower one generalises better."
)


def data(study: Study) -> pd.DataFrame:
    """The rows of the table of step sizes."""
    return study.table("step_size")


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """A panel for each dataset, a curve for each method."""
    if data.empty:
        return blank(
            PAGE,
            ["There is nothing to draw.", "It needs runs of a method at several learning rates."],
            study.protocol.note,
        )
    datasets, unit = list(data["dataset"].unique()), study.protocol.training.learning_rate
    figure = Figure(figsize=(PAGE[0], 3.2), layout="constrained")
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        for i, (method, rows) in enumerate(data[data["dataset"] == dataset].groupby("method", sort=False)):
            _curve(axes, str(method), rows.assign(rate=rows["rate"] / unit), above=i % 2 == 1)
        axes.axhline(0, color="0.7", linewidth=0.6, zorder=0)
        axes.axvline(0, color="0.7", linewidth=0.6, zorder=0)
        axes.set(title=study.protocol.datasets[dataset].folder, xlabel="training loss minus Δ-STN's")
        axes.set_ylabel("validation loss minus Δ-STN's")
        axes.margins(x=0.1)
        axes.locator_params(axis="x", nbins=6)
        axes.legend(loc="upper left")
        sns.despine(ax=axes)
    explain(figure, [study.protocol.note, EXPLANATION])
    return figure


def _curve(axes: Axes, method: str, rows: pd.DataFrame, above: bool) -> None:
    label, colour, line = style_of(method)
    x, y = rows["train_difference"], rows["difference_mean"]
    axes.plot(x, y, marker="o", markersize=3, color=colour, linestyle=line, linewidth=1, label=label)
    axes.vlines(x, rows["difference_ci_low"], rows["difference_ci_high"], color=colour, linewidth=0.6)
    offset, side = ((-3, 4), "right") if above else ((3, -7), "left")
    for rate, at in zip(rows["rate"], zip(x, y, strict=True), strict=True):
        name = str(Fraction(rate).limit_denominator(100))
        axes.annotate(name, at, offset, textcoords="offset points", ha=side, color=colour, fontsize=5)


PICTURE = Picture(data, draw)
