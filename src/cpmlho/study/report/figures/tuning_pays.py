"""When does tuning pay? Test loss minus that of training without tuning, against the number of training examples."""

from __future__ import annotations

import math

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cpmlho.study.arrays import split
from cpmlho.study.report.figures.drawing import panels
from cpmlho.study.report.frame import Study
from cpmlho.study.report.selection import Size, sizes, specs
from cpmlho.study.report.stats import paired
from cpmlho.study.report.style import label_of, style_of

TEST = "final_test_loss"


def data(study: Study) -> pd.DataFrame:
    """A row for each dataset, method and number of training examples, which is empty for all."""
    rows = []
    for line in sizes(specs(study.protocol)):
        done = study.finished[study.finished["dataset"] == line.dataset]
        for size, method in line.runs.items():
            if size in line.fixed and (found := paired(done, method, line.fixed[size], TEST)).n_seeds:
                row = {
                    "dataset": line.dataset,
                    "line": line.spec.method,
                    "method": method,
                    "baseline": line.fixed[size],
                }
                rows.append({**row, "examples": _examples(size), **found._asdict()})
    return pd.DataFrame(rows)


def _examples(size: Size) -> float:
    """How many examples train; NaN for as many as there are."""
    examples, valid_fraction = size
    return math.nan if examples is None else split(examples, valid_fraction)


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """A panel for each dataset, a line for each method."""
    datasets, methods = list(data["dataset"].unique()), list(data["line"].unique())
    colours = dict(zip(methods, sns.color_palette("colorblind", len(methods)), strict=True))
    figure, row = panels([study.folder(name) for name in datasets], 3.2)
    for axes, dataset in zip(row, datasets, strict=True):
        own = data[data["dataset"] == dataset]
        ticks = own["examples"].sort_values().unique()  # NaN, for all, is the last
        places = {_label(value): place for place, value in enumerate(ticks)}
        lines = list(own.groupby("line", sort=False))
        for i, (line, found) in enumerate(lines):
            rows = found.sort_values("examples")
            n = rows["n_seeds"]
            seeds = f"n={n.max()}" if n.nunique() == 1 else f"n={n.min()} to {n.max()}"
            axes.errorbar(
                rows["examples"].map(_label).map(places) + 0.3 * ((i + 0.5) / len(lines) - 0.5),
                rows["mean"],
                [rows["mean"] - rows["ci_low"], rows["ci_high"] - rows["mean"]],
                color=colours[line],
                marker="o",
                markersize=3,
                linewidth=1.2,
                elinewidth=0.8,
                label=f"{study.words(str(line))} ({seeds})",
            )
        axes.axhline(0, color=style_of("fixed").colour, linewidth=0.8)
        axes.set_xticks(range(len(ticks)), list(places))
        axes.set_xlabel("training examples")
        axes.legend(loc="best")
    row[0].set_ylabel(f"test loss minus that of {label_of('fixed').lower()}")
    return figure


def _label(examples: float) -> str:
    return "all" if math.isnan(examples) else f"{examples:,.0f}"
