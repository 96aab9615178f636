"""Table 2 of the paper: the hyperparameters that each method ends at on FashionMNIST."""

from __future__ import annotations

import pandas as pd

from cpmlho.study.report.frame import Study
from cpmlho.study.report.paper import beside_paper, cells, paper_grid, paper_numbers, rows_are_methods
from cpmlho.study.report.render import Grid
from cpmlho.study.report.style import quantity_name
from cpmlho.study.report.tables import Table

DATASET = "fashionmnist"
TITLE = "Final values of the hyperparameters of each method on FashionMNIST (cutout length in pixels)"


def numbers(study: Study) -> pd.DataFrame:
    """A row for each method and hyperparameter that is tuned, those of the paper first."""
    datasets = study.protocol.datasets
    tuned = list(datasets[DATASET].hyperparameters) if DATASET in datasets else []
    printed = dict.fromkeys(quantity for _, _, quantity in paper_numbers(2))
    names = [name for name in printed if name in tuned] + [name for name in tuned if name not in printed]
    rows = beside_paper(study, 2, names, [DATASET]).rename(columns={"quantity": "hyperparameter"})
    return rows[["method", "hyperparameter", "paper", "mean", "std", "n_seeds"]]


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A row for each method, a column for each hyperparameter."""
    made = cells(study, frame.rename(columns={"hyperparameter": "quantity"}).assign(dataset=DATASET))
    names = {(DATASET, name): quantity_name(name) for name in frame["hyperparameter"]}
    header, rows = rows_are_methods(study, made, names)
    return [paper_grid(study, 2, TITLE, header, rows, [DATASET], best=False)]


TABLE = Table(numbers, view)
