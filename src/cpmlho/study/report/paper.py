"""The numbers that the paper prints, and ours beside them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import pandas as pd

from cpmlho.study.report.cautions import cautions
from cpmlho.study.report.frame import Study, finished, incomplete
from cpmlho.study.report.render import Cell, Grid, Line
from cpmlho.study.report.rules import is_papers_setting
from cpmlho.study.report.stats import Summary, significant_best, summarise
from cpmlho.study.report.style import label_of
from cpmlho.study.results import METRICS

KEY = ["dataset", "method", "quantity"]
SUMMARY = list(Summary._fields)
Cells = dict[tuple[str, str, str], Cell]  # by dataset, method, quantity


@cache
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


def beside_paper(study: Study, table: int, quantities: Sequence[str], datasets: list[str]) -> pd.DataFrame:
    """Our mean, spread and interval beside each number of one of the paper's tables, a row each."""
    paper, rows = paper_numbers(table) if is_papers_setting(study.protocol) else {}, []
    for dataset, of_dataset in _chosen(study, datasets).groupby("dataset", sort=False):
        for quantity in quantities:
            for method, group in of_dataset.groupby("method", sort=False):
                key = str(dataset), str(method), quantity
                ours = summarise(finished(group)[quantity_column(quantity)])
                network = study.protocol.datasets[key[0]].network.kind
                rows.append((*key, network, paper.get(key, ""), *ours))
    return pd.DataFrame(rows, columns=[*KEY, "network", "paper", *SUMMARY])


def cells(study: Study, frame: pd.DataFrame, *, lowest: bool | None = None) -> Cells:
    """Each row of `beside_paper` as the cell of a table.

    Args:
        study: of the rows.
        frame: the rows: dataset, method, quantity, paper, mean, std.
        lowest: whether the lowest or the highest mean is the best; None: there is no best.
    """
    made: Cells = {}
    for key, rows in frame.groupby(["dataset", "quantity"], sort=False):
        dataset, quantity = map(str, key)
        runs = study.compared[study.compared["dataset"] == dataset]
        column = quantity_column(quantity)
        best = None if lowest is None else significant_best(finished(runs), column, lowest=lowest)
        for row in rows.to_dict("records"):
            method = row["method"]
            mark = incomplete(runs[runs["method"] == method])
            made[dataset, method, quantity] = Cell(
                row["mean"], row["std"], row["paper"], mark, method == best, f"{dataset}/{method}"
            )
    return made


def paper_grid(
    study: Study, table: int, title: str, header: list[str], rows: list[Line], datasets: list[str], best: bool
) -> Grid:
    """One of the paper's tables, with what must be said of it."""
    shown = [cell for row in rows for cell in row if isinstance(cell, Cell)]
    chosen = _chosen(study, datasets)
    if not shown:
        caption = f"{title}. The protocol runs no such dataset."
    else:
        caption = " ".join(_sentences(study, table, title, shown, chosen, best))
    return Grid(f"Table {table}", header, rows, caption, study.protocol.note, cautions(chosen))


def _chosen(study: Study, datasets: list[str]) -> pd.DataFrame:
    return study.compared[study.compared["dataset"].isin(datasets)]


def _sentences(study: Study, table: int, title: str, shown: list[Cell], chosen: pd.DataFrame, best: bool) -> list[str]:
    sentences = [
        f"{title}.",
        f"Ours: mean ± sample standard deviation over seeds (n={len(study.protocol.run.seeds)});"
        " in parentheses the paper's number, – where it prints none.",
        _budget(study, chosen),
    ]
    if best:
        bold = "Bold: the best mean, if the 95 % interval of its paired difference to the second best excludes zero"
        none = "" if any(cell.bold for cell in shown) else "; none is"
        sentences += [f"Intervals are 95 % Student-t over seeds (table{table}.csv).", f"{bold}{none}."]
    else:
        sentences.append("No intervals are given.")
    if any(cell.mark for cell in shown):
        sentences.append("In brackets: seeds that are missing from the mean.")
    return sentences


def _budget(study: Study, chosen: pd.DataFrame) -> str:
    datasets = study.protocol.datasets
    epochs = ", ".join(f"{datasets[name].epochs} on {datasets[name].folder}" for name in chosen["dataset"].unique())
    text = f"Epochs: {epochs}; values at the last step."
    searches = chosen[chosen["trials"].notna()].drop_duplicates("method")
    for row in searches.itertuples():
        spec = study.spec(str(row.dataset), str(row.method))
        text += f" {label_of(spec.method)}: the best of {spec.trials} trials by validation loss"
        text += "." if spec.trainings == spec.trials else f", which cost {spec.trainings:g} such trainings together."
    return text


def rows_are_methods(study: Study, made: Cells, names: dict[tuple[str, str], str]) -> tuple[list[str], list[Line]]:
    """Tables 2 and 3: a column for each quantity of a dataset.

    Args:
        study: of the cells.
        made: the cells.
        names: of the columns, by dataset and quantity.
    """
    used = list(dict.fromkeys((dataset, quantity) for dataset, _, quantity in made))
    rows: list[Line] = [
        [label_of(method), *(made[dataset, method, quantity] for dataset, quantity in used)]
        for method in study.protocol.run.methods
        if used
    ]
    return ["Method", *(names[each] for each in used)], rows
