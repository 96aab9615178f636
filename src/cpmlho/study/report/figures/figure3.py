"""The best validation loss so far against the number of batch gradients; the paper has no such figure."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from cpmlho.study.report.figures.drawing import FEWEST_OF_A_BAND, band, panels, plain_ticks
from cpmlho.study.report.frame import Study, by_method
from cpmlho.study.report.style import style_of
from cpmlho.study.report.work import anytime, evaluations


def data(study: Study) -> pd.DataFrame:
    """Each method's curve: median over seeds and the quartiles."""
    evaluated = evaluations(study)
    compared = evaluated[evaluated["method"].isin(study.protocol.run.methods)]
    curves = [
        anytime(group, "gradients").assign(dataset=dataset, method=method)
        for dataset, method, group in by_method(compared)
    ]
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame()


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """A panel for each dataset."""
    datasets = list(data["dataset"].unique())
    figure, row = panels([study.protocol.datasets[name].folder for name in datasets], 2.9)
    for axes, dataset in zip(row, datasets, strict=True):
        for method, curve in data[data["dataset"] == dataset].groupby("method", sort=False):
            name, colour, line = style_of(str(method))
            axes.plot(curve["gradients"], curve["median"], color=colour, linestyle=line, linewidth=1.4, label=name)
            if curve["n_seeds"].max() >= FEWEST_OF_A_BAND:
                band(axes, curve["gradients"], curve["low"], curve["high"], colour)
        axes.set(xscale="log", yscale="log", xlabel="batch gradients")
        plain_ticks(axes.xaxis, (1, 2, 5))
        plain_ticks(axes.yaxis, tuple(range(1, 10)))
    row[0].set_ylabel("best validation loss so far")
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=-(-len(labels) // 2))
    return figure
