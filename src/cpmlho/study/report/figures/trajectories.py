"""What Figures 1 and 2 share: how hyperparameters of MNIST move while the network trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cpmlho.study.report.along import KEY
from cpmlho.study.report.figures.drawing import FEWEST_OF_A_BAND, blank, explain, plain_ticks
from cpmlho.study.report.frame import Study, finished, incomplete
from cpmlho.study.report.stats import summarise_rates
from cpmlho.study.report.style import quantity_name
from cpmlho.study.results import HYPERPARAMETERS

DATASET, FOLDER = "mnist", "MNIST"
SEEDS = r"^seed\d+$"  # the columns of single seeds
EXPLANATION = "Line: mean; band: 95 % Student-t interval, both on the logit scale; faint: single seeds."


class Series(NamedTuple):
    """The runs behind one colour of a figure."""

    name: str | float
    label: str
    colour: str
    line: str
    runs: pd.DataFrame

    @property
    def legend(self) -> str:
        """The label with the number of seeds."""
        return f"{self.label} ({incomplete(self.runs) or f'n={len(self.runs)}'})"


class Plot(NamedTuple):
    """What one of the figures shows."""

    number: int
    size: tuple[float, float]
    key: str  # the column of its data that tells the series apart
    parameters: Callable[[Study], list[str]]
    series: Callable[[Study], list[Series]]
    wanted: str  # said where the protocol asks for no such run
    ending: tuple[float, float] | None = None  # between which rates the claim has the curves end; on a logarithmic axis
    mark: int | None = None  # the update that the paper names


def data(plot: Plot, study: Study) -> pd.DataFrame:
    """All that the figure draws, in one table.

    Raises:
        ResultError: a run has no table of its hyperparameters.
    """
    curves = []
    for each in plot.series(study):
        if len(runs := finished(each.runs)):
            rows = study.along(HYPERPARAMETERS, runs)
            for parameter in plot.parameters(study):
                curve = _curve(rows, parameter, study.protocol.run.seeds)
                curve.insert(0, plot.key, each.name)
                curve.insert(1, "hyperparameter", parameter)
                curves.append(curve)
    if not curves:
        return pd.DataFrame(columns=[plot.key, "hyperparameter", "update"])
    return pd.concat(curves, ignore_index=True)


def _curve(rows: pd.DataFrame, parameter: str, asked: list[int]) -> pd.DataFrame:
    """One dropout rate by update: mean and interval on the logit scale, number of seeds, and each seed."""
    columns = {f"seed{seed}": own.set_index("update")[parameter] for (_, _, seed), own in rows.groupby(KEY, sort=False)}
    seeds = pd.concat(columns, axis=1, join="inner")
    summary = summarise_rates(seeds).assign(n_seeds=len(columns))
    return summary.join(seeds.reindex(columns=[f"seed{seed}" for seed in asked])).reset_index()


def draw(plot: Plot, study: Study, data: pd.DataFrame) -> Figure:
    """A panel for each hyperparameter, or in words which runs are lacking."""
    series = plot.series(study)
    figure = _empty(plot, series) if data.empty else _panels(plot, data, series)
    explain(figure, [study.protocol.note] if data.empty else [study.protocol.note, EXPLANATION])
    return figure


def _draw(axes: Axes, curve: pd.DataFrame, series: Series) -> None:
    updates, colour = curve["update"], series.colour
    axes.plot(updates, curve.filter(regex=SEEDS), color=colour, linewidth=0.3, alpha=0.25)
    if curve["n_seeds"].max() >= FEWEST_OF_A_BAND:
        axes.fill_between(updates, curve["ci_low"], curve["ci_high"], color=colour, alpha=0.15, linewidth=0)
    axes.plot(updates, curve["mean"], color=colour, linestyle=series.line, linewidth=1.4, label=series.legend)


def _panels(plot: Plot, data: pd.DataFrame, series: list[Series]) -> Figure:
    """A panel for each hyperparameter, and one legend above them all."""
    figure = Figure(figsize=plot.size, layout="constrained")
    parameters = data["hyperparameter"].unique()
    row = figure.subplots(1, len(parameters), squeeze=False)[0]
    for axes, parameter in zip(row, parameters, strict=True):
        curves = data[data["hyperparameter"] == parameter]
        for each in series:
            _draw(axes, curves[curves[plot.key] == each.name], each)
        axes.set_title(f"{FOLDER}, {quantity_name(parameter).lower()}")
        sns.despine(ax=axes)
        axes.set_xlabel("hyperparameter updates")
        axes.margins(x=0.02)
        _frame(plot, axes, curves.filter(regex=SEEDS))
    row[0].set_ylabel("dropout rate")
    lines, labels = row[0].get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) < 7.5 * plot.size[0] else 1
    figure.legend(lines, labels, loc="outside upper center", ncols=columns)
    return figure


def _frame(plot: Plot, axes: Axes, rates: pd.DataFrame) -> None:
    """The limits of a panel of these rates, and what the paper says of it."""
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


def _empty(plot: Plot, series: list[Series]) -> Figure:
    """A figure that says which runs it lacks."""
    lines = [f"Figure {plot.number} has nothing to draw.", f"It shows {plot.wanted}."]
    for each in series:
        lines += [f"{each.label}: no finished run of {DATASET}/{name}" for name in each.runs["method"].unique()]
    if not series:
        lines.append("The protocol asks for no such run.")
    return blank(plot.size, lines)
