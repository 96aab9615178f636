"""Figures 3 and 4, which the paper has not: the loss against the work spent, and against a longer budget."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from cpmlho.study.protocol import Protocol
from cpmlho.study.report.aggregate import by_method
from cpmlho.study.report.budgets import EPOCHS, anytime, courses, longer
from cpmlho.study.report.drawing import PAGE, blank, explain, save, write_data
from cpmlho.study.report.style import STYLE

WORK = {"seconds": "training seconds", "gradients": "batch gradients"}
BOTH = (PAGE[0], 2 * PAGE[1])


def _anytime_data(protocol: Protocol, course: pd.DataFrame) -> pd.DataFrame:
    """All that Figure 3 draws."""
    curves = []
    compared = course[course["method"].isin(protocol.run.methods)]
    for dataset, method, group in by_method(compared):
        for work in WORK:
            curve = anytime(group, work).rename(columns={work: "work"})
            curves.append(curve.assign(dataset=dataset, method=method, unit=work))
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=["dataset"])


def _band(axes: Axes, curve: pd.DataFrame, x: str, method: str) -> None:
    label, colour, line = STYLE[method]
    count = int(curve["n_seeds"].max())
    axes.plot(curve[x], curve["median"], color=colour, linestyle=line, linewidth=1.4, label=f"{label} (n={count})")
    axes.fill_between(curve[x], curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)


def _plain_ticks(axis: Axis, ticks: tuple[int, ...]) -> None:
    """Ticks of a logarithmic axis: at these first digits, and saying 0.2, not a power of ten."""
    axis.set_major_locator(LogLocator(subs=ticks))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _anytime_figure(protocol: Protocol, data: pd.DataFrame) -> Figure:
    """A row for each dataset, a column for each measure of work."""
    datasets = list(data["dataset"].unique())
    figure = Figure(figsize=(PAGE[0], PAGE[1] * len(datasets)), layout="constrained")
    panels = figure.subplots(len(datasets), len(WORK), squeeze=False, sharey="row")
    for row, dataset in zip(panels, datasets, strict=True):
        for axes, (work, unit) in zip(row, WORK.items(), strict=True):
            chosen = data[(data["dataset"] == dataset) & (data["unit"] == work)]
            for method, curve in chosen.groupby("method", sort=False):
                _band(axes, curve, "work", str(method))
            axes.set(xscale="log", yscale="log", xlabel=unit, title=protocol.datasets[dataset].folder)
            _plain_ticks(axes.xaxis, (1, 2, 5))
            _plain_ticks(axes.yaxis, tuple(range(1, 10)))
            axes.legend()
            sns.despine(ax=axes)
        row[0].set_ylabel("best validation loss so far")
    return figure


def _longer_data(protocol: Protocol, course: pd.DataFrame) -> pd.DataFrame:
    """All that Figure 4 draws: validation loss by epoch, over seeds, of each method given more epochs."""
    names = longer(protocol)
    chosen = course[course["method"].isin(names.values())]
    grouped = chosen.groupby(["dataset", "method", "epoch"], sort=False)["val_loss"]
    data = grouped.agg(median="median", low="min", high="max", n_seeds="count").reset_index()
    return data.replace({"method": {name: base for base, name in names.items()}})


def _longer_figure(protocol: Protocol, data: pd.DataFrame) -> Figure:
    """A panel for each dataset."""
    datasets = list(data["dataset"].unique())
    figure = Figure(figsize=PAGE, layout="constrained")
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        for method, curve in data[data["dataset"] == dataset].groupby("method", sort=False):
            _band(axes, curve, "epoch", str(method))
        axes.axvline(
            protocol.datasets[dataset].epochs, color="0.5", linewidth=0.8, linestyle=":", label="the protocol's budget"
        )
        axes.set(yscale="log", xlabel="epochs", ylabel="validation loss", title=protocol.datasets[dataset].folder)
        axes.set_xticks(EPOCHS)
        _plain_ticks(axes.yaxis, tuple(range(1, 10)))
        axes.legend()
        sns.despine(ax=axes)
    return figure


def draw_curves(protocol: Protocol, runs: pd.DataFrame, folder: Path) -> None:
    """Write Figures 3 and 4 into the folder."""
    course = courses(protocol, runs)
    band = "Line: median over seeds; band: lowest to highest seed."
    for number, data, figure_of, lacking in (
        (3, _anytime_data(protocol, course), _anytime_figure, "a finished run"),
        (4, _longer_data(protocol, course), _longer_figure, "a variant that changes epochs alone"),
    ):
        write_data(data, folder / f"figure{number}.csv")
        empty = blank(PAGE, [f"Figure {number} has nothing to draw.", f"It needs {lacking}."])
        figure = empty if data.empty else figure_of(protocol, data)
        explain(figure, [protocol.note] if data.empty else [protocol.note, band])
        save(figure, folder / f"figure{number}")
