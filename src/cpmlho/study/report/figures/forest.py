"""The answer in one picture: CPMLHO minus each other method, with intervals, and what the paper prints."""

from __future__ import annotations

from itertools import product

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cpmlho.study.report.figures import Picture
from cpmlho.study.report.figures.drawing import PAGE, blank, explain
from cpmlho.study.report.frame import LOSS, Study
from cpmlho.study.report.paper import paper_effect
from cpmlho.study.report.rules import readings_run
from cpmlho.study.report.stats import paired
from cpmlho.study.report.style import label_of, style_of

EXPLANATION = (
    "Final validation loss, paired by seed: mean and 95 % Student-t interval; left of 0, CPMLHO is lower."
    " Diamond: the difference that the paper prints."
)


def data(study: Study) -> pd.DataFrame:
    """A row for each dataset, reading of CPMLHO and other method."""
    rows, ours = [], readings_run(study.protocol)
    others = [name for name in study.protocol.run.methods if name not in ours]
    for dataset, reading, other in product(study.protocol.run.datasets, ours, others):
        found = paired(study.finished[study.finished["dataset"] == dataset], reading, other, LOSS)
        if found.n_seeds:
            printed = paper_effect(dataset, "cpmlho", other, "val_loss")
            row = {"dataset": dataset, "method": reading, "other": other, **found._asdict(), "paper": printed}
            rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else ["dataset"])


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """A panel for each dataset, a line for each pair."""
    if data.empty:
        return blank(
            PAGE,
            ["There is nothing to compare.", "It needs a run of CPMLHO and one of another method."],
            study.protocol.note,
        )
    datasets = list(data["dataset"].unique())
    lines = int(data.groupby("dataset").size().max())
    figure = Figure(figsize=(PAGE[0], 0.8 + 0.28 * lines), layout="constrained")
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        _panel(axes, data[data["dataset"] == dataset])
        axes.set(title=study.protocol.datasets[dataset].folder, xlabel="difference in loss")
    explain(figure, [study.protocol.note, EXPLANATION])
    return figure


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
    several, names = rows["method"].nunique() > 1, []
    for height, row in enumerate(rows.to_dict("records")):
        colour = style_of(row["method"]).colour
        axes.plot([row["ci_low"], row["ci_high"]], [height, height], color=colour, linewidth=1.2)
        axes.plot(row["mean"], height, "o", color=colour, markersize=3.5)
        if pd.notna(row["paper"]):
            axes.plot(row["paper"], height, "D", markerfacecolor="none", markeredgecolor="0.3", markersize=3.5)
        first = label_of(row["method"]) if several else ""
        names.append(f"{first} − {label_of(row['other'])} (n={row['n_seeds']})".lstrip())
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.locator_params(axis="x", nbins=5)
    sns.despine(ax=axes)


PICTURE = Picture(data, draw)
