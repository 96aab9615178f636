"""What is made of the runs, tables and figures: whether it is still as the verb that makes it wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpmlho.study.files import SUMS, sealed, unsealed
from cpmlho.study.hints import command
from cpmlho.study.results import ResultError


def intact(folder: Path, names: Sequence[str], verb: str) -> None:
    """Check that files of `folder` are as the verb that makes them wrote them, all at once.

    Raises:
        ResultError: some are missing, or other.
    """
    if missing := [name for name in names if not (folder / name).exists()]:
        raise ResultError(f"{folder}: no {', '.join(missing)}; make the {verb} first: {command(verb)}")
    if other := unsealed(folder, names):
        said = f"{folder}: {', '.join(other)}: not as the rest was written"
        raise ResultError(f"{said}; make the {verb} again: {command(verb)}")


def all_intact(results: Path) -> None:
    """Check all tables and figures that there are.

    Raises:
        ResultError: some are missing, or other.
    """
    for verb in ("tables", "figures"):
        if (results / verb).is_dir():
            intact(results / verb, sealed(results / verb) if (results / verb / SUMS).exists() else [SUMS], verb)
