"""The paper's claims, each with what its tests come to."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pandas as pd

from cpmlho.study.report.claims import claims
from cpmlho.study.report.frame import Study
from cpmlho.study.report.render import Grid, Line, Linked, number
from cpmlho.study.report.stats import LEVEL, holm
from cpmlho.study.report.tables import Table
from cpmlho.study.report.tables.claims import words

Verdict = Literal["reproduced", "not reproduced", "inconclusive"]
DECISIONS = ("holds", "fails", "undecided")
HEADER = ["Claim", "Place", "Statement", "Verdict", "Its tests", "It turns on", "p (Holm)", "Seeds to decide"]
CAPTION = (
    "A claim is reproduced if all its tests hold and the largest p-value stays below 0.05 after Holm's correction"
    " over the claims; not reproduced if one fails; else inconclusive. Seeds to decide: the fewest that would"
    " decide its undecided tests at the present means and spreads, – where no number would."
)


def numbers(study: Study) -> pd.DataFrame:
    """A row for each claim, from the table of tests."""
    tests = study.table("claims")
    parts = {claim.id: tests[tests["claim"] == claim.id] for claim in claims()}
    adjusted = dict(zip(parts, holm([_largest_p(each) for each in parts.values()]), strict=True))
    rows = []
    for claim in claims():
        mine = parts[claim.id]
        verdict = verdict_of(mine["decision"], adjusted[claim.id])
        needed = mine["seeds_needed"].max() if verdict == "inconclusive" else None
        asked = {"claim": claim.id, "place": claim.place, "statement": claim.quote, "rule": claim.rule}
        counts = {name: int((mine["decision"] == name).sum()) for name in DECISIONS}
        found = {"verdict": verdict, **counts, "decisive": _decisive(study, mine).words}
        rows.append({**asked, **found, "p_holm": adjusted[claim.id], "seeds_needed": needed})
    return pd.DataFrame(rows)


def _largest_p(parts: pd.DataFrame) -> float:
    """All parts must hold, so that a claim's p-value is its largest (intersection-union)."""
    p = parts.loc[parts["side"] != "printed", "p"].to_numpy(dtype=float)
    return float(np.max(p)) if len(p) else math.nan


def verdict_of(decisions: pd.Series, p: float) -> Verdict:
    """What a claim's tests come to, with the largest of their p-values after Holm's correction."""
    if (decisions == "fails").any():
        return "not reproduced"
    return "reproduced" if (decisions == "holds").all() and not p >= LEVEL else "inconclusive"


def _decisive(study: Study, parts: pd.DataFrame) -> Linked:
    """The test that the verdict turns on: one that fails, or else one that is undecided, or else the first."""
    ranks = parts["decision"].map({"fails": 0, "undecided": 1, "holds": 2})
    row = parts.assign(rank=ranks, seeds=-parts["n_seeds"]).sort_values(["rank", "seeds"], kind="stable").iloc[0]
    dataset, test, effect, bounds = words(study.protocol, row)
    return Linked(f"{dataset}, {test.words}: {effect} ({bounds}), n={row['n_seeds']}, {row['test']}", test.runs)


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each claim."""
    tests = study.table("claims")
    lines: list[Line] = []
    for row in frame.to_dict("records"):
        tally = ", ".join(f"{row[name]} {name}" for name in DECISIONS if row[name])
        decisive = _decisive(study, tests[tests["claim"] == row["claim"]])
        needed = "–" if pd.isna(row["seeds_needed"]) else f"{row['seeds_needed']:.0f}"
        place = [row["claim"], row["place"], row["statement"], row["verdict"]]
        lines.append([*place, tally, decisive, number(row["p_holm"], 3), needed])
    return [Grid("Verdicts", HEADER, lines, CAPTION, study.protocol.note)]


TABLE = Table(numbers, view)
