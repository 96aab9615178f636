"""Table 3 of the paper: final accuracies."""

from __future__ import annotations

import pandas as pd

from cpmlho.study.report.frame import Study
from cpmlho.study.report.paper import SUMMARY, beside_paper, cells, paper_grid, rows_are_methods
from cpmlho.study.report.render import Grid
from cpmlho.study.report.style import quantity_name
from cpmlho.study.report.tables import Table

TITLE = "Final accuracy of each method on the image classification tasks"


def numbers(study: Study) -> pd.DataFrame:
    """A row for each dataset, method and split."""
    rows = beside_paper(study, 3, ["val_acc", "test_acc"], study.protocol.run.datasets)
    rows["split"] = rows["quantity"].str.removesuffix("_acc")
    return rows[["dataset", "method", "split", "paper", *SUMMARY]]


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A row for each method, a column for each dataset and split."""
    datasets = study.protocol.run.datasets
    made = cells(study, frame.assign(quantity=frame["split"] + "_acc"), lowest=False)
    names = {
        (dataset, quantity): f"{study.protocol.datasets[dataset].folder} {quantity_name(quantity)}"
        for dataset, _, quantity in made
    }
    header, rows = rows_are_methods(study, made, names)
    return [paper_grid(study, 3, TITLE, header, rows, datasets, best=True)]


TABLE = Table(numbers, view)
