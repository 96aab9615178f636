"""Figure 1 of the paper: MNIST's dropout rates during training, a row for each reading."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cpmlho.study.report.along import KEY
from cpmlho.study.report.figures.drawing import FEWEST_OF_A_BAND, GREY, RASTER, WIDTH, band, rate_axis
from cpmlho.study.report.frame import Study, finished, incomplete
from cpmlho.study.report.selection import FIGURE1, schedules, specs
from cpmlho.study.report.stats import summarise_rates
from cpmlho.study.report.style import quantity_name, style_of
from cpmlho.study.results import HYPERPARAMETERS

SEEDS = r"^seed\d+$"  # the columns of single seeds
STEPS = 200  # by which the paper has the hyperparameters at their best


def data(study: Study) -> pd.DataFrame:
    """Each rate by method and update: mean and interval on the logit scale, number of seeds, and each seed.

    Raises:
        ResultError: a run has no table of its hyperparameters.
    """
    curves = []
    for method in (name for row in schedules(specs(study.protocol)).values() for name in row):
        runs = study.finished[(study.finished["dataset"] == FIGURE1) & (study.finished["method"] == method)]
        for parameter in study.protocol.datasets[FIGURE1].hyperparameters if len(runs) else ():
            seeds = by_seed(study, runs, parameter)
            curve = summarise_rates(seeds).assign(n_seeds=seeds.shape[1]).join(seeds).reset_index()
            curves.append(curve.assign(method=method, hyperparameter=parameter))
    if not curves:
        return pd.DataFrame()
    every = pd.concat(curves, ignore_index=True)
    first = ["method", "hyperparameter", "update", "mean", "ci_low", "ci_high", "n_seeds"]
    return every[[*first, *every.columns.difference(first, sort=False)]]


def by_seed(study: Study, runs: pd.DataFrame, parameter: str) -> pd.DataFrame:
    """A hyperparameter by update, a column for each seed."""
    rows = study.along(HYPERPARAMETERS, runs)
    columns = {f"seed{seed}": own.set_index("update")[parameter] for (_, _, seed), own in rows.groupby(KEY, sort=False)}
    return pd.concat(columns, axis=1, join="inner")


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """A column for each rate; all panels have the same axes."""
    rows = schedules(specs(study.protocol))
    rates = list(data["hyperparameter"].unique())
    figure = Figure(figsize=(WIDTH, 0.5 + 1.7 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(rates), squeeze=False, sharex=True, sharey=True)
    train_steps = getattr(study.spec(FIGURE1, next(iter(rows.values()))[0]).settings, "train_steps", 1)
    for line, (name, methods) in zip(grid, rows.items(), strict=True):
        for axes, rate in zip(line, rates, strict=True):
            for method in methods:
                _curve(axes, study, data[(data["method"] == method) & (data["hyperparameter"] == rate)], method)
            for update in (STEPS, STEPS / train_steps):
                axes.axvline(update, color=GREY, linewidth=0.8, linestyle=":", zorder=1.5)
            sns.despine(ax=axes)
        line[0].set_ylabel(f"{name}\ndropout rate")
        line[-1].legend()
    rate_axis(grid[0][0], data.filter(regex=SEEDS))
    for axes, rate in zip(grid[0], rates, strict=True):
        axes.set_title(quantity_name(rate))
    for axes in grid[-1]:
        axes.set(xlabel="hyperparameter updates")
        axes.margins(x=0.02)
    return figure


def _curve(axes: Axes, study: Study, curve: pd.DataFrame, method: str) -> None:
    runs = study.runs[(study.runs["dataset"] == FIGURE1) & (study.runs["method"] == method)]
    name, colour, line = style_of(method)
    label = f"{name} ({incomplete(runs) or f'n={len(finished(runs))}'})"
    axes.plot(curve["update"], curve.filter(regex=SEEDS), color=colour, linewidth=0.4, alpha=0.35, zorder=1)
    axes.set_rasterization_zorder(RASTER)
    if curve["n_seeds"].max() >= FEWEST_OF_A_BAND:
        band(axes, curve["update"], curve["ci_low"], curve["ci_high"], colour)
    axes.plot(curve["update"], curve["mean"], color=colour, linestyle=line, linewidth=1.4, label=label, zorder=3)
