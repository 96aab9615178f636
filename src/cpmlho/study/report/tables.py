"""Tables 1 to 3 of the paper, our numbers beside the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cpmlho.study.protocol import Protocol
from cpmlho.study.report.aggregate import (
    finished,
    flags,
    incomplete,
    paired,
    read_runs,
    significant_best,
    summarise,
)
from cpmlho.study.report.evidence import evidence
from cpmlho.study.report.paper import paper_numbers, quantity_column
from cpmlho.study.report.render import Cell, Grid, Line, Linked, latex, markdown, markdown_table
from cpmlho.study.report.style import QUANTITIES, STYLE
from cpmlho.study.results import write_text


class Table(NamedTuple):
    """What one of the paper's tables holds."""

    number: int
    title: str
    quantities: tuple[str, ...]
    csv: tuple[str, ...]  # the columns that others rely on
    datasets: tuple[str, ...] = ()  # empty: all of the protocol's
    lowest: bool | None = None  # whether the lowest or the highest mean is the best; None: there is no best


_INTERVAL = ("paper", "mean", "std", "ci_low", "ci_high", "n_seeds")
TABLES = (
    Table(
        number=1,
        title="Final validation loss (mean cross-entropy, nats) of each method",
        quantities=("val_loss",),
        csv=("dataset", "network", "method", *_INTERVAL),
        lowest=True,
    ),
    Table(
        number=2,
        title="Final values of the hyperparameters of each method on FashionMNIST (cutout length in pixels)",
        quantities=("dropout0", "dropout1", "dropout2", "cutout_holes", "cutout_length"),
        csv=("method", "hyperparameter", "paper", "mean", "std", "n_seeds"),
        datasets=("fashionmnist",),
    ),
    Table(
        number=3,
        title="Final accuracy of each method on the image classification tasks",
        quantities=("val_acc", "test_acc"),
        csv=("dataset", "method", "split", *_INTERVAL),
        lowest=False,
    ),
)
Cells = dict[tuple[str, str, str], Cell]  # by dataset, method, quantity


def _compared(protocol: Protocol, runs: pd.DataFrame, table: Table) -> pd.DataFrame:
    """The runs that the table is made of; variants are not in the paper's tables."""
    datasets = table.datasets or protocol.run.datasets
    return runs[runs["dataset"].isin(datasets) & runs["method"].isin(protocol.run.methods)]


def _cells(runs: pd.DataFrame, table: Table) -> Cells:
    paper, cells = paper_numbers(table.number), {}
    for dataset, of_dataset in runs.groupby("dataset", sort=False):
        for quantity in table.quantities:
            column = quantity_column(quantity)
            best = None if table.lowest is None else significant_best(of_dataset, column, lowest=table.lowest)
            for method, group in of_dataset.groupby("method", sort=False):
                key = (str(dataset), str(method), quantity)
                ours = summarise(finished(group)[column])
                cells[key] = Cell(ours, paper.get(key, ""), incomplete(group), method == best, f"{dataset}/{method}")
    return cells


def _frame(protocol: Protocol, table: Table, cells: Cells) -> pd.DataFrame:
    rows = [
        {
            "dataset": dataset,
            "network": protocol.datasets[dataset].network.kind,
            "method": method,
            "hyperparameter": quantity,
            "split": quantity.split("_")[0],
            "paper": cell.paper,
            **cell.ours._asdict(),
        }
        for (dataset, method, quantity), cell in cells.items()
    ]
    return pd.DataFrame(rows, columns=list(table.csv))


def _budget(protocol: Protocol, table: Table) -> str:
    datasets = [name for name in protocol.run.datasets if name in (table.datasets or protocol.run.datasets)]
    epochs = ", ".join(f"{protocol.datasets[name].epochs} on {protocol.datasets[name].folder}" for name in datasets)
    text = f"Epochs: {epochs}; values at the last step."
    settings = {method: getattr(protocol.methods, method) for method in protocol.run.methods}
    trials = [f"{STYLE[name].label} {each.trials}" for name, each in settings.items() if hasattr(each, "trials")]
    if trials:
        text += (
            f" A search counts with its best trial by validation loss, each one such training, of: {', '.join(trials)}."
        )
    return text


def _caption(protocol: Protocol, table: Table, cells: Cells) -> str:
    sentences = [
        f"{table.title}.",
        f"Ours: mean ± sample standard deviation over seeds (n={len(protocol.run.seeds)});"
        " in parentheses the paper's number, – where it prints none.",
        _budget(protocol, table),
    ]
    if table.lowest is None:
        sentences.append("No intervals are given.")
    else:
        bold = "Bold: the best mean where the 95 % interval of its paired difference to the second best excludes zero"
        none = "" if any(cell.bold for cell in cells.values()) else "; here none is"
        interval = f"Intervals are 95 % Student-t over seeds (table{table.number}.csv)."
        sentences += [interval, f"{bold}{none}."]
    if any(cell.mark for cell in cells.values()):
        sentences.append("In brackets: seeds that the mean leaves out.")
    return " ".join(sentences)


def _rows_are_datasets(protocol: Protocol, cells: Cells) -> tuple[list[str], list[Line]]:
    """Table 1: a column for each method."""
    header = ["Dataset", "Network", *(STYLE[method].label for method in protocol.run.methods)]
    rows: list[Line] = []
    for name in protocol.run.datasets:
        dataset = protocol.datasets[name]
        ours = [cell for key, cell in cells.items() if key[0] == name]
        rows.append([dataset.folder, dataset.network.kind.upper(), *ours])
    return header, rows


def _rows_are_methods(protocol: Protocol, table: Table, cells: Cells) -> tuple[list[str], list[Line]]:
    """Tables 2 and 3: a column for each quantity, of each dataset if there are several."""
    columns = list(dict.fromkeys((dataset, quantity) for dataset, _, quantity in cells))
    header = ["Method"]
    for dataset, quantity in columns:
        prefix = "" if table.datasets else f"{protocol.datasets[dataset].folder} "
        header.append(prefix + QUANTITIES[quantity])
    rows: list[Line] = [
        [STYLE[method].label, *(cells[dataset, method, quantity] for dataset, quantity in columns)]
        for method in protocol.run.methods
        if columns
    ]
    return header, rows


def _grid(protocol: Protocol, runs: pd.DataFrame, table: Table, cells: Cells) -> Grid:
    if table.number == 1:
        header, rows = _rows_are_datasets(protocol, cells)
    else:
        header, rows = _rows_are_methods(protocol, table, cells)
    caption = _caption(protocol, table, cells) if cells else f"{table.title}. The protocol runs no such dataset."
    return Grid(f"Table {table.number}", header, rows, caption, protocol.note, flags(runs))


def differences(protocol: Protocol, runs: pd.DataFrame) -> Grid:
    """CPMLHO against each other method, paired by seed; to four decimals, as the paper's margins are of thousandths."""
    rows: list[Line] = []
    for name, of_dataset in runs.groupby("dataset", sort=False):
        for other in protocol.run.methods:
            if other != "cpmlho":
                difference = paired(of_dataset, "cpmlho", other, quantity_column("val_loss"))
                label = Linked(f"{STYLE['cpmlho'].label} minus {STYLE[other].label}", f"{name}/{other}")
                mean = f"{difference.mean:+.4f}" if difference.n_seeds else "–"
                interval = f"{difference.ci_low:+.4f} to {difference.ci_high:+.4f}" if difference.n_seeds > 1 else "–"
                rows.append([protocol.datasets[str(name)].folder, label, mean, interval, str(difference.n_seeds)])
    header = ["Dataset", "Difference of validation loss", "Mean", "95 % interval", "n"]
    about = (
        "Paired differences over the seeds that both methods finished; negative: CPMLHO's loss is lower."
        " The intervals are Student-t, each for itself, not corrected for their number."
    )
    return Grid("Differences", header, rows, about)


def grid_of(protocol: Protocol, runs: pd.DataFrame, table: Table) -> tuple[Grid, Cells]:
    """One of the paper's tables, to be printed, and its cells."""
    compared = _compared(protocol, runs, table)
    cells = _cells(compared, table)
    return _grid(protocol, compared, table, cells), cells


def write_tables(protocol: Protocol) -> None:
    """Write all runs, the evidence, and Tables 1 to 3 as `.csv`, `.md` and `.tex`, to `tables` under the results.

    Raises:
        ResultError: a result file is damaged.
    """
    folder = Path(protocol.results_dir) / "tables"
    runs = read_runs(protocol)
    write_text(folder / "runs.csv", runs.to_csv(index=False, lineterminator="\n"))
    for name, (grid, frame) in evidence(protocol, runs).items():
        write_text(folder / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
        write_text(folder / f"{name}.md", markdown(grid))
    for table in TABLES:
        grid, cells = grid_of(protocol, runs, table)
        page = markdown(grid)
        if table.number == 1 and "cpmlho" in protocol.run.methods:
            below = differences(protocol, _compared(protocol, runs, table))
            page += f"\n{below.caption}\n\n{markdown_table(below)}"
        write_text(
            folder / f"table{table.number}.csv", _frame(protocol, table, cells).to_csv(index=False, lineterminator="\n")
        )
        write_text(folder / f"table{table.number}.md", page)
        write_text(folder / f"table{table.number}.tex", latex(grid))
