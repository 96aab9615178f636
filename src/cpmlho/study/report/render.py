"""A table to be printed, from its numbers, and the same table as Markdown and as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan
from typing import Any

import pandas as pd

from cpmlho.study.report.cautions import cautions
from cpmlho.study.report.frame import Study, framed
from cpmlho.study.report.tables import Table

_TEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "–": "--",
    "−": "$-$",
}


@dataclass(frozen=True)
class Cell:
    """Our number beside the paper's."""

    mean: float
    std: float
    paper: str  # as printed, digits included; empty where the paper prints none
    mark: str = ""  # what the mean leaves out
    bold: bool = False
    runs: str = ""  # the runs behind it, `dataset/method`

    def text(self, bold: Callable[[str], str], escape: Callable[[str], str]) -> str:
        """`0.181 ± 0.002 (0.180) [n=2/3, 1 diverged]`, each part where there is one."""
        ours = spread(self.mean, self.std, 3)
        rest = f" ({self.paper or '–'})" + (f" [{self.mark}]" if self.mark else "")
        return (bold(escape(ours)) if self.bold else escape(ours)) + escape(rest)


@dataclass(frozen=True)
class Linked:
    """Text with the runs behind it."""

    words: str
    runs: str  # `dataset/method`

    def text(self, bold: Callable[[str], str], escape: Callable[[str], str]) -> str:
        """The text alone, where there is nothing to link to."""
        return escape(self.words)


DECIMALS = 6  # at most, of a number that fewer would round to zero
Line = list[str | Cell | Linked]


@dataclass(frozen=True)
class Grid:
    """A table to be printed: cells, and what must be said with them."""

    label: str
    header: list[str]
    rows: list[Line]
    caption: str
    note: str = ""
    cautions: list[str] = field(default_factory=list)

    def texts(self, bold: Callable[[str], str], escape: Callable[[str], str]) -> list[list[str]]:
        """Header and rows, formatted."""
        rows = [
            [escape(part) if isinstance(part, str) else part.text(bold, escape) for part in row] for row in self.rows
        ]
        return [[escape(name) for name in self.header], *rows]


# What it shows of a row; `words` of a row is the function from a method to what tables call it.
Column = Callable[[Mapping[Any, Any]], str | Linked]


def number(value: float, decimals: int = 4, sign: str = "") -> str:
    """A number with so many decimals and a true minus sign, – where there is none.

    A value that would be rounded to zero gets a digit that shows it.
    """
    if not isfinite(value):
        return "–"
    while value and not float(f"{value:.{decimals}f}") and decimals < DECIMALS:
        decimals += 1
    text = f"{value:{sign}.{decimals}f}"
    return (text if float(text) else text.lstrip("+-")).replace("-", "−")


def interval(low: float, high: float, decimals: int = 4, sign: str = "+") -> str:
    """An interval in brackets, – where there is none."""
    return "–" if isnan(low) else f"[{number(low, decimals, sign)}, {number(high, decimals, sign)}]"


def spread(mean: float, std: float, decimals: int = 4) -> str:
    """Mean ± standard deviation over seeds."""
    return number(mean, decimals) + ("" if isnan(std) else f" ± {std:.{decimals}f}")


def mean_of(prefix: str) -> Column:
    """The column of a mean, with its standard deviation."""
    return lambda row: spread(row[f"{prefix}_mean"], row[f"{prefix}_std"])


def interval_of(prefix: str) -> Column:
    """The column of an interval."""
    return lambda row: interval(row[f"{prefix}_ci_low"], row[f"{prefix}_ci_high"])


def method_of(column: str) -> Column:
    """The column of a method, with its runs."""
    return lambda row: Linked(row["words"](row[column]), f"{row['dataset']}/{row[column]}")


DIFFERENCE: Mapping[str, Column] = {
    "Difference": lambda row: number(row["difference_mean"], sign="+"),
    "95 % interval": interval_of("difference"),
    "n": lambda row: str(row["difference_n_seeds"]),
}


NOTHING = "The protocol has no runs for this table."


def listed(
    study: Study,
    label: str,
    columns: Mapping[str, Column],
    frame: pd.DataFrame,
    caption: str,
    compared: pd.DataFrame | None = None,
) -> list[Grid]:
    """A table with a line for each row, which begins with the dataset, and warnings about the runs compared."""
    rows: list[Line] = [
        [study.folder(row["dataset"]), *(show({**row, "words": study.words}) for show in columns.values())]
        for row in frame.to_dict("records")
    ]
    found = [] if compared is None or not rows else cautions(compared)
    said = caption if rows else f"{caption} {NOTHING}"
    return [Grid(label, ["Dataset", *columns], rows, said, study.protocol.note, found)]


def evidence(
    label: str,
    rows: Callable[[Study], Iterable[Mapping[str, Any]]],
    columns: Mapping[str, Column],
    caption: str,
    compared: Callable[[Study, pd.DataFrame], pd.DataFrame] | None = None,
) -> Table:
    """A table of the rows that a function makes of a study, printed by `listed`.

    Args:
        label: its heading.
        rows: makes the rows.
        columns: what is printed of a row besides its dataset.
        caption: its caption.
        compared: the runs about which it must warn, if they are unlike each other.
    """
    return Table(
        lambda study: framed(rows(study)),
        lambda study, frame: listed(study, label, columns, frame, caption, compared and compared(study, frame)),
    )


def escape_markdown(text: str) -> str:
    """Make text safe in Markdown, also in the cell of a table."""
    return re.sub(r"([\\`*_|<])", r"\\\1", text)


def escape_latex(text: str) -> str:
    """Make text safe in LaTeX, for which it need not know Unicode."""
    return "".join(_TEX.get(character, character) for character in text)


def markdown_table(grid: Grid) -> str:
    """The cells alone."""
    header, *rows = grid.texts(lambda text: f"**{text}**", escape_markdown)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def markdown(grids: Sequence[Grid]) -> str:
    """Of each grid caption, cells, cautions; of the first also note and label."""
    parts = [f"**{escape_markdown(grids[0].note)}** " if grids[0].note else "", f"{grids[0].label}. "]
    for grid in grids:
        said = [f"**Caution:** {escape_markdown(each)}.\n" for each in grid.cautions]
        parts.append("\n".join([f"{escape_markdown(grid.caption)}\n", markdown_table(grid), *said]))
        parts.append("\n")
    return "".join(parts[:-1])


def latex(grid: Grid) -> str:
    """A float with booktabs' rules; the document's class numbers it."""
    header, *rows = grid.texts(lambda text: rf"\textbf{{{text}}}", escape_latex)
    note = rf"\textbf{{{escape_latex(grid.note)}}} " if grid.note else ""
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{note}{escape_latex(grid.caption)}}}",
        rf"\begin{{tabular}}{{{'l' * len(header)}}}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\textbf{{Caution:}} {escape_latex(each)}." for each in grid.cautions),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
