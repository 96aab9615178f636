"""Every test behind the verdicts."""

from __future__ import annotations

import pandas as pd

from cpmlho.study.protocol import Protocol
from cpmlho.study.report.claims import Part, tested
from cpmlho.study.report.frame import Study
from cpmlho.study.report.render import Grid, Line, Linked, interval, number
from cpmlho.study.report.style import label_of, words_of
from cpmlho.study.report.tables import Table

HEADER = ["Claim", "Dataset", "Test", "Estimate", "95 % interval", "p", "n", "It"]
CAPTION = (
    "Differences and values beside a bound: mean over seeds, BCa bootstrap interval, exact two-sided sign-flip"
    " test. Printed numbers: our mean, and the interval in which one further seed lies; p is Student's, before"
    " correction."
)


def numbers(study: Study) -> pd.DataFrame:
    """A row for each test, as `Part` says."""
    return pd.DataFrame(tested(study), columns=list(Part._fields))


def words(protocol: Protocol, row: pd.Series) -> tuple[str, Linked, str, str]:
    """Dataset, test, estimate and interval of one test; beside a bound or a printed number, of our own value."""
    numeric = row["against"][0].isdigit()
    bound = float(row["against"]) if numeric and row["side"] != "printed" else 0.0
    decimals, sign = 1 if row["quantity"] == "settled" else 5, "" if numeric else "+"
    against = row["against"] if numeric else label_of(row["against"])
    side = "as printed:" if row["side"] == "printed" else row["side"]
    dataset = row["dataset"]
    return (
        protocol.datasets[dataset].folder if dataset in protocol.datasets else dataset,
        Linked(
            f"{label_of(row['method'])}: {words_of(row['quantity'])} {side} {against}", f"{dataset}/{row['method']}"
        ),
        number(row["estimate"] + bound, decimals, sign),
        interval(row["ci_low"] + bound, row["ci_high"] + bound, decimals, sign),
    )


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each test."""
    lines: list[Line] = [
        [row["claim"], *words(study.protocol, row), number(row["p"], 3), str(row["n_seeds"]), row["decision"]]
        for _, row in frame.iterrows()
    ]
    return [Grid("Tests", HEADER, lines, CAPTION, study.protocol.note)]


TABLE = Table(numbers, view)
