"""What Figures 1 and 2 share: how hyperparameters of MNIST move while the network trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cpmlho.study.report.along import KEY
from cpmlho.study.report.figures.drawing import COLUMN, FEWEST_OF_A_BAND, PAGE, blank, explain, plain_ticks
from cpmlho.study.report.frame import Study, finished, incomplete
from cpmlho.study.report.stats import summarise_rates
from cpmlho.study.results import HYPERPARAMETERS

DATASET, FOLDER = "mnist", "MNIST"
SEEDS = r"^seed\d+$"  # the columns of single seeds
EXPLANATION = "Line: mean; band: 95 % Student-t interval, both on the logit scale; faint: single seeds."


class Series(NamedTuple):
    """The runs behind one line of a panel."""

    label: str
    colour: str
    line: str
    runs: pd.DataFrame  # of one method

    @property
    def method(self) -> str:
        """By which the data tell the series apart."""
        return str(self.runs["method"].iloc[0])

    @property
    def legend(self) -> str:
        """The label with the number of seeds."""
        return f"{self.label} ({incomplete(self.runs) or f'n={len(self.runs)}'})"


class Panel(NamedTuple):
    """A hyperparameter, and the series that show it."""

    title: str
    parameter: str
    series: list[Series]


class Plot(NamedTuple):
    """What one of the figures shows."""

    number: int
    panels: Callable[[Study], list[Panel]]
    wanted: str  # said where the protocol asks for no such run
    ending: tuple[float, float] | None = None  # between which rates the claim has the curves end; on a logarithmic axis
    mark: int | None = None  # the update that the paper names


def data(plot: Plot, study: Study) -> pd.DataFrame:
    """All that the figure draws, in one table.

    Raises:
        ResultError: a run has no table of its hyperparameters.
    """
    curves = []
    for panel in plot.panels(study):
        for each in panel.series:
            if len(runs := finished(each.runs)):
                curve = _curve(study.along(HYPERPARAMETERS, runs), panel.parameter, study.protocol.run.seeds)
                curve.insert(0, "method", each.method)
                curve.insert(1, "hyperparameter", panel.parameter)
                curves.append(curve)
    if not curves:
        return pd.DataFrame(columns=["method", "hyperparameter", "update"])
    return pd.concat(curves, ignore_index=True)


def _curve(rows: pd.DataFrame, parameter: str, asked: list[int]) -> pd.DataFrame:
    """One dropout rate by update: mean and interval on the logit scale, number of seeds, and each seed."""
    columns = {f"seed{seed}": own.set_index("update")[parameter] for (_, _, seed), own in rows.groupby(KEY, sort=False)}
    seeds = pd.concat(columns, axis=1, join="inner")
    summary = summarise_rates(seeds).assign(n_seeds=len(columns))
    return summary.join(seeds.reindex(columns=[f"seed{seed}" for seed in asked])).reset_index()


def draw(plot: Plot, study: Study, data: pd.DataFrame) -> Figure:
    """Its panels side by side, or in words which runs are lacking."""
    panels, note = plot.panels(study), study.protocol.note
    if data.empty:
        return _empty(plot, panels, note)
    figure = _panels(plot, data, panels)
    explain(figure, [note, EXPLANATION])
    return figure


def _size(panels: list[Panel]) -> tuple[float, float]:
    return PAGE if len(panels) > 1 else COLUMN


def _panels(plot: Plot, data: pd.DataFrame, panels: list[Panel]) -> Figure:
    """All panels; on one axis of rates where the claim names some."""
    figure = Figure(figsize=_size(panels), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=plot.ending is not None)[0]
    for axes, panel in zip(row, panels, strict=True):
        curves = data[data["hyperparameter"] == panel.parameter]
        for each in panel.series:
            _draw(axes, curves[curves["method"] == each.method], each)
        axes.set(title=panel.title, xlabel="hyperparameter updates")
        sns.despine(ax=axes)
        axes.margins(x=0.02)
        _frame(plot, axes, curves.filter(regex=SEEDS))
    row[0].set_ylabel("dropout rate")
    if plot.ending is None:
        lines, labels = row[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside upper center", ncols=2)
    return figure


def _draw(axes: Axes, curve: pd.DataFrame, series: Series) -> None:
    updates, colour = curve["update"], series.colour
    axes.plot(updates, curve.filter(regex=SEEDS), color=colour, linewidth=0.3, alpha=0.25)
    if curve["n_seeds"].max() >= FEWEST_OF_A_BAND:
        axes.fill_between(updates, curve["ci_low"], curve["ci_high"], color=colour, alpha=0.15, linewidth=0)
    axes.plot(updates, curve["mean"], color=colour, linestyle=series.line, linewidth=1.4, label=series.legend)


def _frame(plot: Plot, axes: Axes, rates: pd.DataFrame) -> None:
    """The limits of a panel, and what the paper says of it; `rates` are all that are drawn of its hyperparameter."""
    if plot.mark is not None:
        axes.axvline(plot.mark, color="0.5", linewidth=0.8, linestyle=":", label=f"update {plot.mark}")
    if plot.ending is None:
        highest = float(rates.max().max())
        axes.set_ylim(0, min(axes.get_ylim()[1], 2 * highest, 1))  # two seeds' wide band may leave the frame
        return
    low, high = plot.ending
    axes.axhspan(low, high, color="0.5", alpha=0.2, linewidth=0, label=f"claim: {low:g} to {high:g}")
    axes.set(yscale="log", ylim=(0.6 * float(rates.min().min()), 1))
    plain_ticks(axes.yaxis, (1, 2, 5))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=2, fontsize=6, columnspacing=1)


def _empty(plot: Plot, panels: list[Panel], note: str) -> Figure:
    """A figure that says which runs it lacks."""
    lines = [f"Figure {plot.number} has nothing to draw.", f"It shows {plot.wanted}."]
    asked = {each.method: each.label for panel in panels for each in panel.series}
    lines += [f"{label}: no finished run of {DATASET}/{method}" for method, label in asked.items()]
    if not asked:
        lines.append("The protocol asks for no such run.")
    return blank(_size(panels), lines, note)
