"""Table 1 of the paper: final validation losses."""

from __future__ import annotations

import pandas as pd

from cpmlho.study.registry import NETWORKS
from cpmlho.study.report.frame import Study
from cpmlho.study.report.paper import SUMMARY, beside_paper, cells, paper_grid
from cpmlho.study.report.render import Grid, Line
from cpmlho.study.report.style import label_of
from cpmlho.study.report.tables import Table

TITLE = "Final validation loss (mean cross-entropy, nats) of each method"


def numbers(study: Study) -> pd.DataFrame:
    """A row for each dataset and method."""
    rows = beside_paper(study, 1, ["val_loss"], study.protocol.run.datasets)
    return rows[["dataset", "network", "method", "paper", *SUMMARY]]


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A row for each dataset, a column for each method."""
    made = cells(study, frame.assign(quantity="val_loss"), lowest=True)
    protocol = study.protocol
    rows: list[Line] = []
    for name in protocol.run.datasets:
        dataset = protocol.datasets[name]
        network = NETWORKS[dataset.network.kind].label
        rows.append([dataset.folder, network, *(cell for key, cell in made.items() if key[0] == name)])
    header = ["Dataset", "Network", *map(label_of, protocol.run.methods)]
    return [paper_grid(study, 1, TITLE, header, rows, protocol.run.datasets, best=True)]


TABLE = Table(numbers, view)
