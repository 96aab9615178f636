"""Table 1 of the paper: final validation losses; below it, CPMLHO's paired differences to the other methods."""

from __future__ import annotations

from itertools import product

import pandas as pd

from cpmlho.study.registry import NETWORKS
from cpmlho.study.report.frame import LOSS, Study, finished
from cpmlho.study.report.paper import SUMMARY, beside_paper, cells, paper_grid
from cpmlho.study.report.render import Grid, Line, Linked, interval, number
from cpmlho.study.report.rules import rules
from cpmlho.study.report.stats import paired
from cpmlho.study.report.style import label_of
from cpmlho.study.report.tables import Table

TITLE = "Final validation loss (mean cross-entropy, nats) of each method"


def numbers(study: Study) -> pd.DataFrame:
    """A row for each dataset and method."""
    rows = beside_paper(study, 1, ["val_loss"], study.protocol.run.datasets)
    return rows[["dataset", "network", "method", "paper", *SUMMARY]]


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A row for each dataset, a column for each method; and the differences."""
    made = cells(study, frame.assign(quantity="val_loss"), lowest=True)
    protocol = study.protocol
    rows: list[Line] = []
    for name in protocol.run.datasets:
        dataset = protocol.datasets[name]
        network = NETWORKS[dataset.network.kind].label
        rows.append([dataset.folder, network, *(cell for key, cell in made.items() if key[0] == name)])
    header = ["Dataset", "Network", *map(label_of, protocol.run.methods)]
    first = paper_grid(study, 1, TITLE, header, rows, protocol.run.datasets, best=True)
    return [first, differences(study)] if readings(study) else [first]


def readings(study: Study) -> list[str]:
    """The readings of CPMLHO that the protocol runs."""
    return [each.method for each in rules().readings if each.method in study.protocol.run.methods]


def differences(study: Study) -> Grid:
    """Each reading of CPMLHO against the other methods by seed; to four decimals, as margins are thousandths."""
    rows: list[Line] = []
    ours = readings(study)
    others = [name for name in study.protocol.run.methods if name not in ours]
    for name, runs in study.compared.groupby("dataset", sort=False):
        for reading, other in product(ours, others):
            found = paired(finished(runs), reading, other, LOSS)
            label = Linked(f"{label_of(reading)} minus {label_of(other)}", f"{name}/{other}")
            bounds = interval(found.ci_low, found.ci_high)
            folder = study.protocol.datasets[str(name)].folder
            rows.append([folder, label, number(found.mean, sign="+"), bounds, str(found.n_seeds)])
    header = ["Dataset", "Difference of validation loss", "Mean", "95 % interval", "n"]
    about = (
        "Paired differences over the seeds that both methods finished; negative: CPMLHO's loss is lower."
        " The intervals are Student-t, each for itself, not corrected for their number."
    )
    return Grid("Differences", header, rows, about)


TABLE = Table(numbers, view)
