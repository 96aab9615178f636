"""The registry of tables: to add one, add its file and its line here.

Nothing here imports pandas, as the workflow reads the names before every command.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

    from cpmlho.study.report.frame import Study
    from cpmlho.study.report.render import Grid

EVIDENCE, PAPER = ("csv", "md"), ("csv", "md", "tex")
TABLES: dict[str, tuple[str, ...]] = {  # the kinds of files of each
    "runs": ("csv",),
    "verdicts": EVIDENCE,
    "claims": EVIDENCE,
    "robust": EVIDENCE,
    "hypotheses": EVIDENCE,
    "differences": EVIDENCE,
    "divergence": EVIDENCE,
    "variants": EVIDENCE,
    "equal_compute": EVIDENCE,
    "transfer": EVIDENCE,
    "optimism": EVIDENCE,
    "splits": EVIDENCE,
    "step_size": EVIDENCE,
    "matched": EVIDENCE,
    "multiverse": EVIDENCE,
    "table1": PAPER,
    "table2": PAPER,
    "table3": PAPER,
}


class Table(NamedTuple):
    """A table: its numbers, and how they are printed."""

    numbers: Callable[[Study], pd.DataFrame]
    view: Callable[[Study, pd.DataFrame], list[Grid]]  # of more than one grid, the first is the table


def load(name: str) -> Table:
    """The table that a module of this package declares as `TABLE`."""
    table: Table = import_module(f"{__name__}.{name}").TABLE
    return table
