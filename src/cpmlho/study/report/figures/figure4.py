"""Figure 4, which the paper has not: the loss in training for more epochs."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cpmlho.study.report.figures import Picture
from cpmlho.study.report.figures.drawing import BAND, PAGE, band, blank, explain, plain_ticks
from cpmlho.study.report.frame import Study
from cpmlho.study.report.work import EPOCHS, evaluations, with_more_epochs


def data(study: Study) -> pd.DataFrame:
    """Validation loss by epoch, over seeds, of each method given more epochs."""
    names = with_more_epochs(study.protocol)
    evaluated = evaluations(study)
    chosen = evaluated[evaluated["method"].isin(names.values())]
    grouped = chosen.groupby(["dataset", "method", "epoch"], sort=False)["val_loss"]
    frame = grouped.agg(median="median", low="min", high="max", n_seeds="count").reset_index()
    return frame.replace({"method": {name: base for base, name in names.items()}})


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """A panel for each dataset."""
    protocol = study.protocol
    if data.empty:
        figure = blank(PAGE, ["Figure 4 has nothing to draw.", "It needs a variant that changes epochs alone."])
        explain(figure, [protocol.note])
        return figure
    datasets = list(data["dataset"].unique())
    figure = Figure(figsize=PAGE, layout="constrained")
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        for method, curve in data[data["dataset"] == dataset].groupby("method", sort=False):
            band(axes, curve, "epoch", str(method))
        axes.axvline(
            protocol.datasets[dataset].epochs, color="0.5", linewidth=0.8, linestyle=":", label="the protocol's budget"
        )
        axes.set(yscale="log", xlabel="epochs", ylabel="validation loss", title=protocol.datasets[dataset].folder)
        axes.set_xticks(EPOCHS)
        plain_ticks(axes.yaxis, tuple(range(1, 10)))
        axes.legend()
        sns.despine(ax=axes)
    explain(figure, [protocol.note, BAND])
    return figure


PICTURE = Picture(data, draw)
