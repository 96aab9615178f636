"""What all figures share: their look, and how they are written."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from io import BytesIO, StringIO
from pathlib import Path

import matplotlib as mpl
import matplotlib.style
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from cpmlho.study.files import write_bytes, write_text
from cpmlho.study.report.style import style_of

BAND = "Line: median over seeds; band: from the lower to the upper quartile, of three seeds or more."
COLUMN, PAGE = (3.3, 3.0), (6.9, 2.5)  # width and height in inches
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
    "legend.frameon": False,
    "path.simplify_threshold": 0.5,  # pixels at 72 to the inch: keeps the SVG of many seeds small
    "savefig.dpi": 300,
    "svg.hashsalt": "cpmlho",  # without it, and with a date, no two SVG files are alike
}


def look() -> AbstractContextManager[None]:
    """The look of all figures, whatever the user's own settings are."""
    style: AbstractContextManager[None] = mpl.style.context(["default", sns.axes_style("ticks"), RC])
    return style


def blank(size: tuple[float, float], lines: Sequence[str], note: str = "") -> Figure:
    """A figure that says in words why there is nothing to draw, with the protocol's note below."""
    figure = Figure(figsize=size, layout="constrained")
    text = "\n".join(textwrap.fill(line, int(20 * size[0])) for line in lines)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=7)
    explain(figure, [note])
    return figure


def explain(figure: Figure, lines: Sequence[str]) -> None:
    """Put lines of small print below a figure."""
    width = int(21 * figure.get_figwidth())
    figure.supxlabel("\n".join(textwrap.fill(line, width) for line in lines if line), fontsize=6, color="0.3")


FEWEST_OF_A_BAND = 3  # seeds; a band of fewer shows nothing


def band(axes: Axes, curve: pd.DataFrame, x: str, method: str) -> None:
    """A method's median over seeds with the interquartile band."""
    label, colour, line = style_of(method)
    count = int(curve["n_seeds"].max())
    axes.plot(curve[x], curve["median"], color=colour, linestyle=line, linewidth=1.4, label=f"{label} (n={count})")
    if count >= FEWEST_OF_A_BAND:
        axes.fill_between(curve[x], curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)


def plain_ticks(axis: Axis, ticks: tuple[int, ...]) -> None:
    """Ticks of a logarithmic axis: at these first digits, and saying 0.2, not a power of ten."""
    axis.set_major_locator(LogLocator(subs=ticks))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: Path) -> None:
    """Write `.svg` and `.png`, the same bytes for the same figure, and never half a file."""
    _lay_out(figure)
    svg, png = StringIO(), BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.savefig(png, format="png", metadata={"Software": None})
    write_text(path.with_suffix(".svg"), svg.getvalue())
    write_bytes(path.with_suffix(".png"), png.getbuffer())


def _lay_out(figure: Figure) -> None:
    """Lay out once, as for SVG, what each format would draw an extra time for."""
    FigureCanvasSVG(figure)
    figure.set_dpi(72)
    if figure.axes and (engine := figure.get_layout_engine()):
        engine.execute(figure)
    figure.set_layout_engine(None)
