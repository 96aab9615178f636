"""Figure 4, which the paper has not: the loss in training for more epochs, each method's minus Δ-STN's."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cpmlho.study.report.figures import Picture
from cpmlho.study.report.figures.drawing import FEWEST_OF_A_BAND, PAGE, blank, explain
from cpmlho.study.report.frame import Study
from cpmlho.study.report.stats import paired
from cpmlho.study.report.style import style_of
from cpmlho.study.report.work import EPOCHS, evaluations, with_more_epochs

REFERENCE = "delta_stn"
EXPLANATION = "Line: mean over seeds, paired; band: 95 % Student-t interval of three seeds or more."


def data(study: Study) -> pd.DataFrame:
    """Validation loss by epoch of each method given more epochs minus Δ-STN's, paired by seed."""
    names = with_more_epochs(study.protocol)
    evaluated = evaluations(study)
    rows = []
    for (dataset, epoch), group in evaluated.groupby(["dataset", "epoch"], sort=False):
        there = set(group["method"])
        for base, name in names.items():
            if base != REFERENCE and {name, names.get(REFERENCE)} <= there:
                found = paired(group, name, names[REFERENCE], "val_loss")
                rows.append({"dataset": dataset, "method": base, "epoch": epoch, **found._asdict()})
    return pd.DataFrame(rows).sort_values(["dataset", "method", "epoch"]) if rows else pd.DataFrame(columns=["dataset"])


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """A panel for each dataset."""
    protocol = study.protocol
    if data.empty:
        return blank(
            PAGE, ["Figure 4 has nothing to draw.", "It needs two variants that change epochs alone."], protocol.note
        )
    datasets = list(data["dataset"].unique())
    figure = Figure(figsize=PAGE, layout="constrained")
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        for method, curve in data[data["dataset"] == dataset].groupby("method", sort=False):
            _difference(axes, curve, str(method))
        axes.axhline(0, color=style_of(REFERENCE).colour, linewidth=0.8, linestyle="--", label="Δ-STN")
        budget = protocol.datasets[dataset].epochs
        axes.axvline(budget, color="0.5", linewidth=0.8, linestyle=":", label="the protocol's budget")
        axes.set(xlabel="epochs", ylabel="validation loss minus Δ-STN's", title=protocol.datasets[dataset].folder)
        axes.set_xticks(EPOCHS)
        axes.legend()
        sns.despine(ax=axes)
    explain(figure, [protocol.note, EXPLANATION])
    return figure


def _difference(axes: Axes, curve: pd.DataFrame, method: str) -> None:
    label, colour, _ = style_of(method)
    count = int(curve["n_seeds"].max())
    axes.plot(curve["epoch"], curve["mean"], color=colour, linewidth=1.4, label=f"{label} (n={count})")
    if count >= FEWEST_OF_A_BAND:
        axes.fill_between(curve["epoch"], curve["ci_low"], curve["ci_high"], color=colour, alpha=0.15, linewidth=0)


PICTURE = Picture(data, draw)
