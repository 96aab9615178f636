"""The specification curve: every specification of CPMLHO minus its own baseline and minus Δ-STN, above its choices."""

from __future__ import annotations

from dataclasses import asdict
from itertools import product
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cpmlho.study.report.figures.drawing import WIDTH
from cpmlho.study.report.frame import Study
from cpmlho.study.report.paper import paper_effect
from cpmlho.study.report.rules import PAPERS
from cpmlho.study.report.selection import specifications, specs
from cpmlho.study.report.style import label_of, style_of
from cpmlho.study.spec import RunSpec

NARROWEST = 9  # specifications that a column has room for
FAR = 20  # times the median deviation and the paper's effect: a mean so far away would hide all others
USUAL = 0.8  # of the specifications: a choice that more of them make is left out
CENTRED = {True: ("centred", "cpmlho"), False: ("uncentred", "cpmlho_uncentred")}  # a network's name and colour
CHOICES: dict[str, tuple[str, dict[str, str]]] = {  # what a setting and its values are called
    "constraint": ("held to $w_e$", {"raw": "(H λ) R", "response_weight": "R alone", "displaced": "(H δ) R"}),
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
    "response": ("steps of $w_e$, $w_h$", {"stn_joint": "joint"}),
    "warm_up": ("epochs of warm-up", {}),
    "momentum": ("momentum", {}),
    "split": ("split", {}),
}


def data(study: Study) -> pd.DataFrame:
    """A row for each specification that has been run, with what it chooses; lowest minus its own baseline first."""
    table = study.table("multiverse")
    if table.empty:
        return table
    table = table[table["dataset"].isin(specifications(specs(study.protocol)))].reset_index(drop=True)
    found = [study.spec(row["dataset"], row["specification"]) for row in table.to_dict("records")]
    chosen = pd.DataFrame([choices(spec) for spec in found], dtype=str)
    table["centred"] = chosen["response"] == "delta_stn"
    table["paper"] = table["dataset"].map(lambda name: paper_effect(name, "cpmlho", PAPERS, "val_loss"))
    varied = chosen.loc[:, chosen.nunique() > 1]
    rows = table.drop(columns="changes").join(varied)
    order = rows.assign(dataset=rows["dataset"].map({name: i for i, name in enumerate(rows["dataset"].unique())}))
    order = order.sort_values(["dataset", "centred", "own_mean"], ascending=[True, False, True], kind="stable")
    return rows.loc[order.index].reset_index(drop=True)


def choices(spec: RunSpec) -> dict[str, str]:
    """What a specification chooses, by setting, as text."""
    every: dict[str, Any] = {**asdict(spec.settings), "momentum": spec.training.momentum, "split": spec.split}
    return {name: f"{every[name]:g}" if isinstance(every[name], float) else str(every[name]) for name in CHOICES}


def shown(data: pd.DataFrame) -> list[tuple[str, str]]:
    """The settings and values that are rows of the grid, without those that nearly all specifications share."""
    rows = []
    for name in (name for name in CHOICES if name in data):
        shares = data[name].value_counts(normalize=True).sort_index()
        rows += [
            (name, str(value)) for value, share in shares.items() if share <= USUAL and value in _named(name, value)
        ]
    return rows


def _named(name: str, value: object) -> set[object]:
    """The value, unless it is the network, which the column's title names."""
    return {value} if name != "response" or value == "stn_joint" else set()


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """A column for each dataset and network; both differences above the grid of choices."""
    rows = shown(data)
    columns = [
        (dataset, centred, own.reset_index(drop=True))
        for dataset, centred in product(data["dataset"].unique(), (True, False))
        if len(own := data[(data["dataset"] == dataset) & (data["centred"] == centred)])
    ]
    heights = [9, 9, len(rows) + 1]
    figure = Figure(figsize=(WIDTH, 0.8 + 0.14 * sum(heights)), layout="constrained")
    ratios = {"width_ratios": [max(len(own), NARROWEST) for *_, own in columns], "height_ratios": heights}
    grid = figure.subplots(3, len(columns), squeeze=False, sharex="col", gridspec_kw=ratios)
    for (above, middle, below), (dataset, centred, own) in zip(grid.T, columns, strict=True):
        name, method = CENTRED[centred]
        _differences(above, own, "own", style_of(method).colour)
        _differences(middle, own, "difference", style_of(method).colour)
        above.set_title(f"{study.protocol.datasets[dataset].folder}\n{name}", fontsize=7)
        _choices(below, own, rows, named=below is grid[-1][0])
        below.set_xlabel(f"{len(own)} specifications", fontsize=7)
    grid[0][0].set_ylabel("loss minus that of\nits own baseline")
    grid[1][0].set_ylabel(f"loss minus that of\n{label_of(PAPERS)}")
    return figure


def _differences(axes: Axes, rows: pd.DataFrame, against: str, colour: str) -> None:
    """A point with its interval for each specification; one far from all others as an arrow with its mean."""
    axes.axhline(0, color="0.5", linewidth=0.8)
    if rows["paper"].notna().any():
        axes.axhline(rows["paper"].iloc[0], color="0.3", linewidth=0.8, linestyle=":")
    means, upper = rows[f"{against}_mean"], axes.get_xaxis_transform()
    distance = (means - means.median()).abs().median() + abs(rows["paper"].fillna(0).iloc[0])
    for x, row in enumerate(rows.to_dict("records")):
        mean, face = row[f"{against}_mean"], colour if row["admissible"] else "white"
        away = mean - means.median()
        if abs(away) > FAR * distance:
            y, arrow = (0.97, "^") if away > 0 else (0.12, "v")
            axes.plot(x, y, arrow, color=colour, markerfacecolor=face, markersize=4, transform=upper)
            axes.text(x - 0.5, y, f"{mean:+.2f}", ha="right", va="center", fontsize=6, transform=upper)
        else:
            axes.plot([x, x], [row[f"{against}_ci_low"], row[f"{against}_ci_high"]], color=colour, linewidth=1)
            axes.plot(x, mean, "o", color=colour, markerfacecolor=face, markersize=3, markeredgewidth=0.8)
        if row["diverged"]:
            axes.plot(x, 0.03, "x", color="#D55E00", markersize=3.5, transform=upper)
    axes.margins(y=0.12)
    axes.locator_params(axis="y", nbins=5)
    axes.tick_params(axis="y", labelsize=6, pad=1)
    axes.tick_params(axis="x", length=0)
    sns.despine(ax=axes)


def _choices(axes: Axes, own: pd.DataFrame, rows: list[tuple[str, str]], *, named: bool) -> None:
    """A square where a specification makes a choice."""
    for height, (name, value) in enumerate(rows):
        made = own.index[own[name] == value]
        axes.plot(own.index, [height] * len(own), ".", color="0.88", markersize=2)
        axes.plot(made, [height] * len(made), "s", color="0.2", markersize=2.4)
    names = [CHOICES[name][1].get(value, value) for name, value in rows]
    first = [i == 0 or rows[i - 1][0] != name for i, (name, _) in enumerate(rows)]
    labels = [
        f"{CHOICES[row[0]][0]}: {name}" if new else name for row, name, new in zip(rows, names, first, strict=True)
    ]
    axes.set_yticks(range(len(rows)), labels if named else [""] * len(rows), fontsize=6)
    axes.set_xticks([])
    axes.set_xlim(-0.7, max(len(own), NARROWEST) - 0.3)
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    sns.despine(ax=axes, left=True, bottom=True)
    axes.tick_params(length=0)
