"""The specification curve: every reading of CPMLHO minus Δ-STN, sorted, above the choices that each makes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, SymmetricalLogLocator

from cpmlho.study.report.figures import Picture
from cpmlho.study.report.figures.drawing import PAGE, blank, explain
from cpmlho.study.report.frame import Study
from cpmlho.study.report.paper import paper_effect
from cpmlho.study.report.rules import PAPERS
from cpmlho.study.report.style import style_of
from cpmlho.study.report.tables.multiverse import progress
from cpmlho.study.spec import RunSpec

LINEAR = 1e-3  # nats, within which the axis is linear
NARROWEST = 9  # specifications that a panel has room for
USUAL = 0.8  # of the specifications: a choice that more of them make goes without saying
EXPLANATION = (
    "Above: final validation loss minus Δ-STN's, paired by seed, mean and 95 % Student-t interval, on an axis that is"
    f" logarithmic beyond ±{LINEAR:g}; below 0, CPMLHO is lower. Filled: admissible; hollow: not, or not known; cross:"
    " seeds diverged; neither: no seed of both yet. Dash: minus the same network without CPMLHO's two parts. Dotted:"
    " the difference that the paper prints. Below: the choices that each makes; one that nearly all make is left out."
)
CHOICES: dict[str, tuple[str, dict[str, str]]] = {  # what a setting and its values are called
    "response": ("network", {"delta_stn": "centred", "stn": "uncentred", "stn_joint": "uncentred, one step"}),
    "constraint": ("held to $w_e$", {"raw": "(H λ) R", "response_weight": "R alone", "displaced": "(H d) R"}),
    "g": ("g", {"l2": "norm", "squared": "norm squared", "l1": "sum", "mean_l1": "mean"}),
    "per_layer": ("plane", {"True": "for each layer", "False": "for all layers"}),
    "cut_every": ("epochs between planes", {}),
    "cut_steps": ("steps between planes", {}),
    "multiplier": ("multiplier", {"dual_ascent": "dual ascent", "adbo": "ADBO's"}),
    "mu_init": ("μ", {}),
    "max_planes": ("planes", {}),
    "eps_sq": ("ε²", {}),
    "theta": ("θ", {}),
    "upper_regularised": ("upper $L_{tr}$", {"True": "with dropout", "False": "without"}),
    "warm_up": ("epochs of warm-up", {}),
    "momentum": ("momentum", {}),
    "split": ("split", {}),
}


def data(study: Study) -> pd.DataFrame:
    """A row for each specification that has been run, with what it chooses."""
    table = study.table("multiverse")
    if table.empty:
        return table
    specs = [study.spec(row["dataset"], row["specification"]) for row in table.to_dict("records")]
    chosen = pd.DataFrame([choices(spec) for spec in specs], dtype=str)
    paper = table["dataset"].map(lambda name: paper_effect(name, "cpmlho", PAPERS, "val_loss"))
    varied = chosen.loc[:, chosen.nunique() > 1]
    return table.drop(columns="changes").assign(paper=paper).join(varied)


def choices(spec: RunSpec) -> dict[str, str]:
    """What a specification chooses, by setting, as text."""
    every: dict[str, Any] = {**asdict(spec.settings), "momentum": spec.training.momentum, "split": spec.split}
    return {name: f"{every[name]:g}" if isinstance(every[name], float) else str(every[name]) for name in CHOICES}


def shown(data: pd.DataFrame) -> list[tuple[str, str]]:
    """The settings and values that are rows of the grid: of a setting that nearly all have alike, the others alone."""
    rows = []
    for name in (name for name in CHOICES if name in data):
        shares = data[name].value_counts(normalize=True).sort_index()
        rows += [(name, str(value)) for value, share in shares.items() if share <= USUAL]
    return rows


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """A column for each dataset: the curve, and under it the grid of choices."""
    note = study.protocol.note
    if data.empty:
        return blank(PAGE, ["There is no specification to draw.", "It needs runs of CPMLHO and of Δ-STN."], note)
    rows, datasets = shown(data), list(data["dataset"].unique())
    widths = [max(int((data["dataset"] == name).sum()), NARROWEST) for name in datasets]
    heights = [20, len(rows) + 1]
    figure = Figure(figsize=(PAGE[0], 0.8 + 0.12 * sum(heights)), layout="constrained")
    ratios = {"width_ratios": widths, "height_ratios": heights}
    panels = figure.subplots(2, len(datasets), squeeze=False, sharex="col", sharey="row", gridspec_kw=ratios)
    for curve, grid, dataset in zip(*panels, datasets, strict=True):
        own = data[data["dataset"] == dataset].reset_index(drop=True)
        _curve(curve, own)
        curve.set_title(study.protocol.datasets[dataset].folder)
        _grid(grid, own, rows)
        grid.set_xlabel(f"{len(own)} readings\n{_seeds(own['difference_n_seeds'])}")
    panels[0][0].set_ylabel("loss minus Δ-STN's")
    explain(figure, [note, *progress(study), EXPLANATION])
    return figure


def _seeds(counts: pd.Series[int]) -> str:
    least, most = counts[counts > 0].min(), counts.max()
    return f"n={most}" if least == most else f"n={least} to {most}" if most else "no seed of both"


def _curve(axes: Axes, rows: pd.DataFrame) -> None:
    axes.set_yscale("symlog", linthresh=LINEAR)
    axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=LINEAR))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
    axes.axhline(0, color="0.5", linewidth=0.8)
    if rows["paper"].notna().any():
        axes.axhline(rows["paper"].iloc[0], color="0.3", linewidth=0.8, linestyle=":")
    for x, row in enumerate(rows.to_dict("records")):
        colour = style_of("cpmlho" if row.get("response", "delta_stn") == "delta_stn" else "cpmlho_uncentred").colour
        axes.plot([x, x], [row["difference_ci_low"], row["difference_ci_high"]], color=colour, linewidth=1)
        face = colour if row["admissible"] else "white"
        axes.plot(x, row["difference_mean"], "o", color=colour, markerfacecolor=face, markersize=3, markeredgewidth=0.8)
        axes.plot(x, row["own_mean"], "_", color="0.35", markersize=3.5)
        if row["diverged"]:
            axes.plot(x, 0.03, "x", color="#D55E00", markersize=3.5, transform=axes.get_xaxis_transform())
    sns.despine(ax=axes)
    axes.tick_params(axis="x", length=0)


def _grid(axes: Axes, specifications: pd.DataFrame, rows: list[tuple[str, str]]) -> None:
    for height, (name, value) in enumerate(rows):
        made = specifications.index[specifications[name] == value]
        axes.plot(specifications.index, [height] * len(specifications), ".", color="0.88", markersize=2)
        axes.plot(made, [height] * len(made), "s", color="0.2", markersize=2.4)
    names = [CHOICES[name][1].get(value, value) for name, value in rows]
    first = [i == 0 or rows[i - 1][0] != name for i, (name, _) in enumerate(rows)]
    labels = [
        f"{CHOICES[row[0]][0]}: {name}" if new else name for row, name, new in zip(rows, names, first, strict=True)
    ]
    axes.set_yticks(range(len(rows)), labels, fontsize=6)
    axes.set_xticks([])
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    sns.despine(ax=axes, left=True, bottom=True)
    axes.tick_params(length=0)


PICTURE = Picture(data, draw)
