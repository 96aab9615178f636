"""Every test behind the verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cpmlho.study.protocol import Protocol
from cpmlho.study.report.claims import Part, tested
from cpmlho.study.report.frame import Study
from cpmlho.study.report.render import Grid, Line, Linked, interval, number
from cpmlho.study.report.style import label_of, words_of
from cpmlho.study.report.tables import Table

HEADER = ["Claim", "Case", "Dataset", "Test", "Estimate", "Interval", "Level", "p (exact)", "n", "Decision"]
CAPTION = (
    "Differences, and values compared with a bound: mean over seeds and Student-t interval. Numbers that the paper"
    " prints: our mean, and the interval in which one further seed would lie. Each interval has its level after Holm's"
    " correction over the tests of its claim, and decides alone; p counts all flips of signs. Final rates are compared"
    " on the logit scale. ±: the smallest effect of interest, half of the difference that the paper prints."
)


def numbers(study: Study) -> pd.DataFrame:
    """A row for each test, as `Part` says."""
    return pd.DataFrame(tested(study), columns=list(Part._fields))


def words(study: Study, row: Mapping[Any, Any]) -> tuple[str, Linked, str, str]:
    """Dataset, test, estimate and interval of one test."""
    numeric = row["against"][0].isdigit()
    against = row["against"] if numeric else _asked(study.protocol, row["against"])
    side = "as printed:" if row["side"] == "printed" else row["side"]
    name = f"{_asked(study.protocol, row['method'])}: {words_of(row['quantity'])} {side} {against}"
    name += f" + {row['margin']:g}" if row["margin"] else ""
    name += f" (±{row['smallest']:g})" if row["smallest"] else ""
    sign = "" if numeric else "+"
    return (
        study.folder(row["dataset"]),
        Linked(name, f"{row['dataset']}/{row['method']}"),
        number(row["estimate"], 5, sign),
        interval(row["ci_low"], row["ci_high"], 5, sign),
    )


def _asked(protocol: Protocol, method: str) -> str:
    there = method in protocol.run.methods or method in protocol.run.variants
    return label_of(method) + ("" if there else " (not in this protocol)")


def case_of(row: Mapping[Any, Any]) -> str:
    """Reading, comparator, split and threshold of a test in words."""
    against = f" against {label_of(row['comparator'])}" if row["comparator"] else ""
    threshold = "" if math.isnan(row["threshold"]) else f", threshold {row['threshold']:g}"
    return f"{row['reading']}{against}, {row['split']} split{threshold}"


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each test."""
    lines: list[Line] = []
    for row in frame.to_dict("records"):
        found = [f"{row['level']:.4f}", number(row["p_exact"], 3), str(row["n_seeds"]), row["decision"]]
        lines.append([row["claim"], case_of(row), *words(study, row), *found])
    return [Grid("Tests", HEADER, lines, CAPTION, study.protocol.note)]


TABLE = Table(numbers, view)
