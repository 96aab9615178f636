"""Figure 2 of the paper: dropout0 of CPMLHO on MNIST from other start values, a row for each reading."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cpmlho.study.report.figures.drawing import RASTER, WIDTH, rate_axis
from cpmlho.study.report.figures.figure1 import SEEDS, by_seed
from cpmlho.study.report.frame import Study, finished
from cpmlho.study.report.selection import FIGURE1, FIGURE2, specs, starts

CLAIMED = (0.025, 0.075)  # between which the claim has dropout0 end


def data(study: Study) -> pd.DataFrame:
    """Dropout0 by reading, start and update, a column for each seed.

    Raises:
        ResultError: a run has no table of its hyperparameters.
    """
    curves = []
    for reading, own in starts(specs(study.protocol)).items():
        for start, method in own.items():
            runs = finished(study.runs[(study.runs["dataset"] == FIGURE1) & (study.runs["method"] == method)])
            if len(runs):
                seeds = by_seed(study, runs, FIGURE2)
                index = pd.DataFrame({"reading": reading, "method": method, "start": start}, index=seeds.index)
                curve = index.join(seeds).reset_index()
                curves.append(curve)
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame()


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """On the left every seed's course; on the right where each ends, by start."""
    readings, every = list(data["reading"].unique()), sorted(data["start"].unique())
    figure = Figure(figsize=(WIDTH, 0.4 + 1.9 * len(readings)), layout="constrained")
    grid = figure.subplots(
        len(readings), 2, squeeze=False, sharey=True, sharex="col", gridspec_kw={"width_ratios": [2, 1]}
    )
    colours = dict(zip(every, mpl.colormaps["plasma"](np.linspace(0, 0.55, len(every))), strict=True))
    for (course, ends), reading in zip(grid, readings, strict=True):
        for axes in (course, ends):
            axes.axhspan(*CLAIMED, color="0.88", linewidth=0, zorder=0.5)
            axes.set_rasterization_zorder(RASTER)
            sns.despine(ax=axes)
        for start, own in data[data["reading"] == reading].groupby("start"):
            seeds = own.filter(regex=SEEDS).dropna(axis="columns", how="all")
            course.plot(own["update"], seeds, color=colours[start], linewidth=0.6, alpha=0.8, zorder=1)
            last = seeds.iloc[-1]
            spread = np.linspace(-0.25, 0.25, len(last)) if len(last) > 1 else np.zeros(1)
            ends.plot(every.index(start) + spread, last, "o", color=colours[start], markersize=3, zorder=3)
        course.set_ylabel(f"{reading}\ndropout0")
    rate_axis(grid[0][0], data.filter(regex=SEEDS))
    grid[0][0].set_title("every seed")
    grid[0][1].set_title("final values")
    grid[-1][0].set(xlabel="hyperparameter updates")
    grid[-1][0].margins(x=0.02)
    grid[-1][1].set(xlabel="start value of dropout0", xlim=(-0.5, len(every) - 0.5))
    grid[-1][1].set_xticks(range(len(every)), [f"{start:g}" for start in every])
    for label, start in zip(grid[-1][1].get_xticklabels(), every, strict=True):
        label.set_color(colours[start])
    return figure
