"""What all figures share: their look, and how they are written."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from io import StringIO
from pathlib import Path

import matplotlib as mpl
import matplotlib.style
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cpmlho.study.results import write_text

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


def blank(size: tuple[float, float], lines: Sequence[str]) -> Figure:
    """A figure that says in words why there is nothing to draw."""
    figure = Figure(figsize=size, layout="constrained")
    text = "\n".join(textwrap.fill(line, int(20 * size[0])) for line in lines)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=7)
    return figure


def explain(figure: Figure, lines: Sequence[str]) -> None:
    """Put lines of small print below a figure."""
    width = int(21 * figure.get_figwidth())
    figure.supxlabel("\n".join(textwrap.fill(line, width) for line in lines if line), fontsize=6, color="0.3")


def write_data(data: pd.DataFrame, path: Path) -> None:
    """Write what a figure draws, to eight digits."""
    write_text(path, data.to_csv(index=False, lineterminator="\n", float_format="%.8g"))


def save(figure: Figure, path: Path) -> None:
    """Write `.svg` and `.png`, the same bytes for the same figure, and never half a file."""
    svg = StringIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    write_text(path.with_suffix(".svg"), svg.getvalue())
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format="png", metadata={"Software": None})
        temporary.replace(path.with_suffix(".png"))
    finally:
        temporary.unlink(missing_ok=True)
