"""Validation loss against training loss, each method at every learning rate that it ran with."""

from __future__ import annotations

from fractions import Fraction

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cpmlho.study.report.figures.drawing import GREY, panels
from cpmlho.study.report.frame import Study
from cpmlho.study.report.rules import PAPERS, rules
from cpmlho.study.report.selection import rates, specs
from cpmlho.study.report.style import label_of, style_of

MARKERS = "v<>o^sDP"  # of learning rates, by rank


def data(study: Study) -> pd.DataFrame:
    """The rows of the table of step sizes."""
    return study.table("step_size")


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """A panel for each dataset, a curve for each method, a marker for each rate."""
    datasets, unit = list(data["dataset"].unique()), study.protocol.training.learning_rate
    markers = dict(zip(sorted(data["rate"].unique()), MARKERS, strict=False))
    asked = rates(specs(study.protocol))
    figure, row = panels([study.protocol.datasets[name].folder for name in datasets], 3.4)
    for axes, dataset in zip(row, datasets, strict=True):
        own = data[data["dataset"] == dataset]
        for method, rows in own.groupby("method", sort=False):
            _curve(axes, str(method), rows, markers)
        for line in (axes.axhline, axes.axvline):
            line(0, color="0.7", linewidth=0.6, zorder=0.5)
        missing = [name for of, name in asked if of == dataset and name not in set(own["method"])]
        if missing:
            names = ", ".join(map(label_of, missing))
            text = f"Not shown: {names}\n(fewer than two rates have finished)"
            axes.text(0.02, 0.98, text, va="top", transform=axes.transAxes, fontsize=6, color=GREY)
        axes.set(xlabel=f"training loss minus that of {label_of(PAPERS)}")
        axes.margins(0.08)
        axes.locator_params(axis="x", nbins=6)
    row[0].set_ylabel(f"validation loss minus that of {label_of(PAPERS)}")
    marks = [
        Line2D(
            [],
            [],
            marker=marker,
            color=GREY,
            linestyle="",
            markersize=4,
            label=f"{Fraction(rate / unit).limit_denominator(100)} ×",
        )
        for rate, marker in markers.items()
    ]
    methods = {label: handle for axes in row for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        [*methods.values(), *marks],
        [*methods, *(str(each.get_label()) for each in marks)],
        loc="outside upper center",
        ncols=5,
    )
    return figure


def _curve(axes: Axes, method: str, rows: pd.DataFrame, markers: dict[float, str]) -> None:
    """A method through its rates; CPMLHO's markers are larger and hollow, so that its baseline's show inside."""
    label, colour, line = style_of(method)
    hollow = method in {reading.method for reading in rules().readings}
    axes.plot(rows["train_difference"], rows["difference_mean"], color=colour, linestyle=line, linewidth=1, label=label)
    axes.vlines(
        rows["train_difference"], rows["difference_ci_low"], rows["difference_ci_high"], color=colour, linewidth=0.6
    )
    for row in rows.to_dict("records"):
        face, size = ("none", 7) if hollow else (colour, 3.5)
        at = row["train_difference"], row["difference_mean"]
        axes.plot(*at, marker=markers[row["rate"]], color=colour, markerfacecolor=face, markersize=size)
