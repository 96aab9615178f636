"""The dropout rates and the validation loss during training, for Delta-STN with other responses and with planes."""

from __future__ import annotations

from itertools import product

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cpmlho.study.report.figures.drawing import GREY, WIDTH, rate_axis
from cpmlho.study.report.frame import Study
from cpmlho.study.report.selection import FIGURE1, responses, specs
from cpmlho.study.report.stats import summarise_rates
from cpmlho.study.report.style import quantity_name
from cpmlho.study.results import HISTORY, HYPERPARAMETERS

LOSS = "val_loss"
FITTED = 0.1  # training loss below which the network fits its training examples


def data(study: Study) -> pd.DataFrame:
    """Means over seeds by method, quantity and step; rates on the logit scale, and when the network fits its examples.

    Raises:
        ResultError: a run has no table of its hyperparameters or of its losses.
    """
    curves = []
    for method in responses(specs(study.protocol)):
        runs = study.finished[(study.finished["dataset"] == FIGURE1) & (study.finished["method"] == method)]
        if runs.empty:
            continue
        history, rates = study.along(HISTORY, runs), study.along(HYPERPARAMETERS, runs)
        means = {LOSS: history.groupby("step")[LOSS].mean()}
        for name in study.protocol.datasets[FIGURE1].hyperparameters:
            means[name] = summarise_rates(rates.pivot(index="step", columns="seed", values=name))["mean"]
        training = history.assign(loss=history.get("train_loss")).groupby("step")["loss"].mean()  # not in earlier runs
        fitted = training[training < FITTED].index.min()
        for quantity, mean in means.items():
            curve = mean.rename("mean").reset_index()
            curves.append(curve.assign(method=method, quantity=quantity, n_seeds=len(runs), fitted=fitted))
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame()


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """A panel for each rate and one for the loss; the lowest final loss comes first in the legend."""
    final = data[data["quantity"] == LOSS].groupby("method")["mean"].last().sort_values()
    colours = sns.color_palette("colorblind", (len(final) + 1) // 2)
    looks = dict(zip(final.index, product(("-", "--"), colours), strict=False))
    quantities = [*data["quantity"].drop_duplicates().drop(data.index[0]), LOSS]
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    grid = figure.add_gridspec(3, 2, height_ratios=(1, 1, 0.55))
    panels = [figure.add_subplot(grid[place // 2, place % 2]) for place in range(len(quantities))]
    for axes, quantity in zip(panels, quantities, strict=True):
        for method, (line, colour) in looks.items():
            curve = data[(data["quantity"] == quantity) & (data["method"] == method)]
            label = f"{study.words(str(method))} (n={curve['n_seeds'].iloc[0]})"
            axes.plot(curve["step"], curve["mean"], color=colour, linestyle=line, linewidth=1.2, label=label)
        axes.axvline(data["fitted"].median(), color=GREY, linewidth=0.8, linestyle=":")
        axes.set(title=quantity_name(quantity), xlabel="training iterations")
        sns.despine(ax=axes)
        if quantity != LOSS:
            rate_axis(axes, data.loc[data["quantity"] == quantity, "mean"])
    below = figure.add_subplot(grid[2, :])
    below.axis("off")
    below.legend(*panels[0].get_legend_handles_labels(), loc="center", ncols=2)
    return figure
