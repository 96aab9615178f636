"""The paper's claims, each with its registered verdict in each of its cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

from cpmlho.study.report.frame import Study
from cpmlho.study.report.render import Grid, Line, Linked
from cpmlho.study.report.rules import rules
from cpmlho.study.report.stats import EXPLORATORY
from cpmlho.study.report.style import label_of
from cpmlho.study.report.tables import Table
from cpmlho.study.report.tables.claims import words

Verdict = Literal["reproduced", "not reproduced", "inconclusive"]
DECISIONS = ("fails", "undecided", "holds", "calibrated")  # a verdict rests on the first of these that there is
CASE = ["reading", "comparator", "split"]
HEADER = ["Claim", "Reading", "Against", "Split", "Registered verdict", "Its tests", "Deciding test"]
CAPTION = (
    "A claim is reproduced if all its tests hold, not reproduced if one fails, else inconclusive; also inconclusive if"
    " it depends on a threshold. Cells that the budget was calibrated on decide nothing. We show the failing test with"
    " the most seeds; if all hold, the one with the fewest. Exploratory: it has fewer than ten seeds."
)


def numbers(study: Study) -> pd.DataFrame:
    """A row for each claim and case, from the table of tests."""
    tests = study.table("claims")
    rows = []
    for claim in rules().claims:
        stated = {"claim": claim.id, "place": claim.place, "statement": claim.quote, "rule": claim.rule}
        for case, parts in tests[tests["claim"] == claim.id].groupby(CASE, sort=False):
            row = decisive(parts)
            rows.append(
                {
                    **stated,
                    **dict(zip(CASE, case, strict=True)),
                    "verdict": verdict_of(parts),
                    **{name: int((parts["decision"] == name).sum()) for name in DECISIONS},
                    "exploratory": row["n_seeds"] < EXPLORATORY,
                    "decisive": test_in_words(study, row).words,
                }
            )
    return pd.DataFrame(rows, columns=None if rows else ["claim", "verdict", *CASE])


def verdict_of(parts: pd.DataFrame) -> Verdict:
    """The verdict of a claim from its tests; inconclusive if that depends on the threshold."""
    found = {_verdict(set(same["decision"])) for _, same in parts.groupby("threshold", dropna=False)}
    return found.pop() if len(found) == 1 else "inconclusive"


def _verdict(decisions: set[str]) -> Verdict:
    if "fails" in decisions:
        return "not reproduced"
    return "reproduced" if decisions - {"calibrated"} == {"holds"} else "inconclusive"


def decisive(parts: pd.DataFrame) -> Mapping[Any, Any]:
    """The test that a verdict rests on: one that fails, else one that is undecided, else one that holds.

    Of several, one of the most seeds; but if all hold, as they must, one of the fewest. Where a verdict is inconclusive
    by its threshold, one that is undecided or holds.
    """
    ranks, verdict = {name: rank for rank, name in enumerate(DECISIONS)}, verdict_of(parts)
    if verdict != "not reproduced":
        ranks["fails"] = len(ranks)
    seeds = parts["n_seeds"] if verdict == "reproduced" else -parts["n_seeds"]
    order = parts.assign(rank=parts["decision"].map(ranks), seeds=seeds)
    return dict(order.sort_values(["rank", "seeds"], kind="stable").iloc[0])


def test_in_words(study: Study, row: Mapping[Any, Any]) -> Linked:
    """A test with its numbers and decision."""
    dataset, test, effect, bounds = words(study, row)
    threshold = (
        f" at threshold {row['threshold']:g}" if row["threshold"] > 0 and not row["against"][0].isdigit() else ""
    )
    found = f"{effect} {bounds}, n={row['n_seeds']}" if row["n_seeds"] else "not run"
    return Linked(f"{row['decision']}: {dataset}, {test.words}{threshold}: {found}", test.runs)


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each claim and case."""
    tests = study.table("claims")
    lines: list[Line] = []
    for row in frame.to_dict("records"):
        mine = (tests["claim"] == row["claim"]) & (tests[CASE] == [row[name] for name in CASE]).all(axis=1)
        tally = ", ".join(f"{row[name]} {name}" for name in DECISIONS if row[name])
        against = label_of(row["comparator"]) if row["comparator"] else "–"
        mark = " (exploratory)" if row["exploratory"] else ""
        what = [f"{row['claim']}, {row['place']}", row["reading"], against, row["split"] + mark, row["verdict"]]
        lines.append([*what, tally, test_in_words(study, decisive(tests[mine]))])
    return [Grid("Registered verdicts", HEADER, lines, CAPTION, study.protocol.note)]


TABLE = Table(numbers, view)
