"""The numbers that the paper prints."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

from cpmlho.study.results import METRICS

KEY = ["dataset", "method", "quantity"]


def paper_numbers(table: int | None = None) -> dict[tuple[str, str, str], str]:
    """A table's numbers, or all, as the paper prints them, by dataset, method and quantity."""
    with (files("cpmlho.study.report") / "paper.csv").open(encoding="utf-8") as file:
        rows = pd.read_csv(file, dtype=str)
    if table is not None:
        rows = rows[rows["table"] == str(table)]
    return dict(zip(zip(*(rows[name] for name in KEY), strict=True), rows["value"], strict=True))


def quantity_column(quantity: str) -> str:
    """The column of all runs that holds one of the tables' quantities."""
    return f"final_{quantity}" if quantity in METRICS else f"hyperparameter_{quantity}"


def paper_effect(dataset: str, method: str, other: str, quantity: str) -> float | None:
    """The difference `method` minus `other` that the paper prints, if it prints both numbers."""
    printed = paper_numbers()
    ours, theirs = (printed.get((dataset, name, quantity)) for name in (method, other))
    return float(ours) - float(theirs) if ours and theirs else None
