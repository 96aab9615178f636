"""Figure 3, which the paper has not: the best loss so far against the work spent."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cpmlho.study.report.figures import Picture
from cpmlho.study.report.figures.drawing import BAND, PAGE, band, blank, explain, plain_ticks
from cpmlho.study.report.frame import Study, by_method
from cpmlho.study.report.work import anytime, evaluations

WORK = {"seconds": "training seconds", "gradients": "batch gradients"}


def data(study: Study) -> pd.DataFrame:
    """Each method's curve against each measure of work."""
    evaluated = evaluations(study)
    compared = evaluated[evaluated["method"].isin(study.protocol.run.methods)]
    curves = [
        anytime(group, work).rename(columns={work: "work"}).assign(dataset=dataset, method=method, unit=work)
        for dataset, method, group in by_method(compared)
        for work in WORK
    ]
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=["dataset"])


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """A row for each dataset, a column for each measure of work."""
    note = study.protocol.note
    if data.empty:
        return blank(PAGE, ["Figure 3 has nothing to draw.", "It needs a finished run."], note)
    datasets = list(data["dataset"].unique())
    figure = Figure(figsize=(PAGE[0], PAGE[1] * len(datasets)), layout="constrained")
    panels = figure.subplots(len(datasets), len(WORK), squeeze=False, sharey="row")
    for row, dataset in zip(panels, datasets, strict=True):
        for axes, (work, unit) in zip(row, WORK.items(), strict=True):
            chosen = data[(data["dataset"] == dataset) & (data["unit"] == work)]
            for method, curve in chosen.groupby("method", sort=False):
                band(axes, curve, "work", str(method))
            axes.set(xscale="log", yscale="log", xlabel=unit, title=study.protocol.datasets[dataset].folder)
            plain_ticks(axes.xaxis, (1, 2, 5))
            plain_ticks(axes.yaxis, tuple(range(1, 10)))
            sns.despine(ax=axes)
        row[0].set_ylabel("best validation loss so far")
    handles, labels = panels[0][0].get_legend_handles_labels()
    columns = -(-len(labels) // -(-len(labels) // 5))  # in rows of five at most, as equal as can be
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)
    explain(figure, [note, BAND])
    return figure


PICTURE = Picture(data, draw)
