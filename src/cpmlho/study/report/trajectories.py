"""Figures 1 and 2 of the paper: how the dropout rates of MNIST move while the network trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cpmlho.study.protocol import Protocol, RunKey
from cpmlho.study.report.aggregate import finished, half_width, incomplete
from cpmlho.study.report.drawing import COLUMN, PAGE, blank, explain, save, write_data
from cpmlho.study.report.style import QUANTITIES, STYLE
from cpmlho.study.results import HYPERPARAMETERS, read_rows, run_dir

DATASET = "mnist"
RAMP = ["#8CC4E8", STYLE["cpmlho"].colour, "#002B49"]  # from the lowest start to the highest
SEEDS = r"^seed\d+$"  # the columns of single seeds
EXPLANATION = "Line: mean; band: 95 % Student-t interval; faint: single seeds."


class Series(NamedTuple):
    """The runs behind one colour of a figure."""

    name: str | float
    label: str
    colour: str
    line: str
    runs: pd.DataFrame

    @property
    def legend(self) -> str:
        """The label with the number of seeds."""
        return f"{self.label} ({incomplete(self.runs) or f'n={len(self.runs)}'})"


def methods_compared(protocol: Protocol, runs: pd.DataFrame) -> list[Series]:
    """Figure 1's series: the methods that have a hyperparameter schedule."""
    names = [name for name in ("delta_stn", "cpmlho") if name in set(runs["method"])]
    return [Series(name, *STYLE[name], runs[runs["method"] == name]) for name in names]


def starts_compared(protocol: Protocol, runs: pd.DataFrame) -> list[Series]:
    """Figure 2's series: CPMLHO with nothing changed but dropout0's start, by start."""
    starts = {}
    for method, group in runs[runs["algorithm"] == "cpmlho"].groupby("method", sort=False):
        changes = protocol.resolve(RunKey(DATASET, str(method), 0)).changes
        if list(changes) == ["start"] and list(changes["start"]) == ["dropout0"]:
            starts[changes["start"]["dropout0"]] = group
    colours = sns.blend_palette(RAMP, len(starts)).as_hex() if starts else []
    return [
        Series(start, f"start {start:g}", colour, "-", starts[start])
        for start, colour in zip(sorted(starts), colours, strict=True)
    ]


def _curve(protocol: Protocol, runs: pd.DataFrame, parameter: str) -> pd.DataFrame:
    """One hyperparameter by update: mean, interval, number of seeds, and each seed."""
    columns = {}
    for dataset, method, seed in runs[["dataset", "method", "seed"]].itertuples(index=False):
        path = run_dir(protocol.results_dir, RunKey(dataset, method, seed)) / HYPERPARAMETERS
        rows = pd.DataFrame(read_rows(path), columns=["update", parameter])
        columns[f"seed{seed}"] = rows.set_index("update")[parameter]
    seeds = pd.concat(columns, axis=1, join="inner")
    mean, half = seeds.mean(axis=1), seeds.std(axis=1) * half_width(len(columns))
    summary = pd.DataFrame({"mean": mean, "ci_low": mean - half, "ci_high": mean + half, "n_seeds": len(columns)})
    return summary.join(seeds.reindex(columns=[f"seed{seed}" for seed in protocol.run.seeds])).reset_index()


class Plot(NamedTuple):
    """What one of the paper's figures shows."""

    number: int
    size: tuple[float, float]
    key: str  # the column of its data that tells the series apart
    parameters: tuple[str, ...]
    series: Callable[[Protocol, pd.DataFrame], list[Series]]
    wanted: str  # said where the protocol asks for no such run
    ending: float | None = None  # where the paper says that the curves end


PLOTS = (
    Plot(1, PAGE, "method", ("dropout0", "dropout1", "dropout2"), methods_compared, "Δ-STN and CPMLHO on MNIST"),
    Plot(2, COLUMN, "start", ("dropout0",), starts_compared, "CPMLHO on MNIST from other starts of dropout0", 0.05),
)


def _data(protocol: Protocol, plot: Plot, series: list[Series]) -> pd.DataFrame:
    """All that the figure draws, in one table."""
    curves = []
    for each in series:
        if len(runs := finished(each.runs)):
            for parameter in plot.parameters:
                curve = _curve(protocol, runs, parameter)
                curve.insert(0, plot.key, each.name)
                curve.insert(1, "hyperparameter", parameter)
                curves.append(curve)
    if not curves:
        return pd.DataFrame(columns=[plot.key, "hyperparameter", "update"])
    return pd.concat(curves, ignore_index=True)


def _draw(axes: Axes, curve: pd.DataFrame, series: Series) -> None:
    updates, colour = curve["update"], series.colour
    axes.plot(updates, curve.filter(regex=SEEDS), color=colour, linewidth=0.5, alpha=0.35)
    axes.fill_between(updates, curve["ci_low"], curve["ci_high"], color=colour, alpha=0.15, linewidth=0)
    axes.plot(updates, curve["mean"], color=colour, linestyle=series.line, linewidth=1.4, label=series.legend)


def _panels(plot: Plot, data: pd.DataFrame, series: list[Series]) -> Figure:
    """A panel for each hyperparameter, and one legend above them all."""
    figure = Figure(figsize=plot.size, layout="constrained")
    row = figure.subplots(1, len(plot.parameters), squeeze=False)[0]
    for axes, parameter in zip(row, plot.parameters, strict=True):
        curves = data[data["hyperparameter"] == parameter]
        for each in series:
            _draw(axes, curves[curves[plot.key] == each.name], each)
        axes.set_title(QUANTITIES[parameter])
        sns.despine(ax=axes)
        axes.set_xlabel("hyperparameter updates")
        axes.margins(x=0.02)
        highest = float(curves.filter(regex=SEEDS).max().max())
        axes.set_ylim(0, min(axes.get_ylim()[1], 2 * highest, 1))  # two seeds' wide band may leave the frame
    row[0].set_ylabel("dropout rate")
    if plot.ending is not None:
        row[0].axhline(plot.ending, color="0.5", linewidth=0.8, linestyle=":", label=f"paper: around {plot.ending}")
    lines, labels = row[0].get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) < 7.5 * plot.size[0] else 1
    figure.legend(lines, labels, loc="outside upper center", ncols=columns)
    return figure


def _empty(plot: Plot, series: list[Series]) -> Figure:
    """A figure that says which runs it lacks."""
    lines = [f"Figure {plot.number} has nothing to draw.", f"It shows {plot.wanted}."]
    for each in series:
        lines += [f"{each.label}: no finished run of {DATASET}/{name}" for name in each.runs["method"].unique()]
    if not series:
        lines.append("The protocol asks for no such run.")
    return blank(plot.size, lines)


def draw_trajectories(protocol: Protocol, runs: pd.DataFrame, folder: Path) -> None:
    """Write Figures 1 and 2 into the folder."""
    runs = runs[runs["dataset"] == DATASET]
    for plot in PLOTS:
        series = plot.series(protocol, runs)
        data = _data(protocol, plot, series)
        write_data(data, folder / f"figure{plot.number}.csv")
        figure = _empty(plot, series) if data.empty else _panels(plot, data, series)
        explain(figure, [protocol.note] if data.empty else [protocol.note, EXPLANATION])
        save(figure, folder / f"figure{plot.number}")
