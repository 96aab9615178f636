"""What all figures share: their look, axes of rates, intervals, and how they are written."""

from __future__ import annotations

import textwrap
from contextlib import AbstractContextManager
from io import BytesIO, StringIO
from pathlib import Path

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, LogLocator, NullFormatter, NullLocator

from cpmlho.study.files import write_bytes, write_text
from cpmlho.study.report.stats import expit, logit

WIDTH = 6.9  # inches, of a page
FEWEST_OF_A_BAND = 3  # seeds; a band of fewer shows nothing
RASTER = 2  # artists below this order are pixels in SVG, because many faint lines would be megabytes of paths
GREY = "0.35"
RATES = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8)  # ticks of an axis of rates
RC = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.edgecolor": "none",
    "path.simplify_threshold": 0.5,  # pixels at 72 to the inch: keeps SVG small
    "savefig.dpi": 300,
    "svg.hashsalt": "cpmlho",  # without it, and with a date, no two SVG files are alike
}


def look() -> AbstractContextManager[None]:
    """The look of all figures, whatever the user's own settings are."""
    style: AbstractContextManager[None] = mpl.style.context(["default", sns.axes_style("ticks"), RC])
    return style


def blank() -> Figure:
    """A figure in place of one whose runs have not finished."""
    figure = Figure(figsize=(WIDTH / 2, 0.6))
    figure.text(0.5, 0.5, "None of the runs that this figure shows has finished.", ha="center", va="center")
    return figure


def panels(study_titles: list[str], height: float) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each title, side by side."""
    figure = Figure(figsize=(WIDTH if len(study_titles) > 1 else 0.6 * WIDTH, height), layout="constrained")
    row = figure.subplots(1, len(study_titles), squeeze=False)[0]
    for axes, title in zip(row, study_titles, strict=True):
        axes.set_title(title)
        axes.set_rasterization_zorder(RASTER)
        sns.despine(ax=axes)
    return figure, list(row)


def band(axes: Axes, x: pd.Series[float], low: pd.Series[float], high: pd.Series[float], colour: str) -> None:
    """The band between two curves."""
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0, zorder=1)


def rate_axis(axes: Axes, rates: pd.DataFrame | pd.Series[float]) -> None:
    """Make the vertical axis one of rates on the logit scale, wide enough for these rates."""
    values = np.asarray(rates, dtype=float)
    low, high = logit(np.array([np.nanmin(values), np.nanmax(values)]))
    margin = 0.05 * (high - low) + 0.1
    axes.set_yscale("logit")
    axes.set_ylim(expit(low - margin), expit(high + margin))
    axes.yaxis.set_major_locator(FixedLocator(RATES))
    axes.yaxis.set_major_formatter(FixedFormatter([f"{rate:g}" for rate in RATES]))
    axes.yaxis.set_minor_locator(NullLocator())


def plain_ticks(axis: Axis, ticks: tuple[int, ...]) -> None:
    """Ticks of a logarithmic axis: at these first digits, and saying 0.2, not a power of ten."""
    axis.set_major_locator(LogLocator(subs=ticks))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: Path, note: str) -> None:
    """Write `.svg` and `.png` with the protocol's note, the same bytes for the same figure, and never half a file."""
    if note:
        figure.supxlabel(textwrap.fill(note, int(20 * figure.get_figwidth())), fontsize=6, color=GREY)
    _lay_out(figure)
    svg, png = StringIO(), BytesIO()
    figure.savefig(svg, format="svg", dpi=150, metadata={"Date": None})
    figure.savefig(png, format="png", metadata={"Software": None})
    write_text(path.with_suffix(".svg"), svg.getvalue())
    write_bytes(path.with_suffix(".png"), png.getbuffer())


def _lay_out(figure: Figure) -> None:
    """Lay out once for both formats, and round positions: the solver's last digits differ between processes."""
    FigureCanvasSVG(figure)
    figure.set_dpi(72)
    if figure.axes and (engine := figure.get_layout_engine()):
        engine.execute(figure)
    figure.set_layout_engine(None)
    for axes in figure.axes:
        left, bottom, width, height = (round(value, 5) for value in axes.get_position(original=True).bounds)
        axes.set_position((left, bottom, width, height))
