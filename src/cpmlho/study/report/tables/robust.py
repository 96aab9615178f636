"""What remains of each registered verdict under the rules of `robust.py`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from math import isnan
from typing import Any

import pandas as pd

from cpmlho.study.report.along import KEY
from cpmlho.study.report.claims import asked, measured_runs
from cpmlho.study.report.frame import Study
from cpmlho.study.report.measures import MEASURED
from cpmlho.study.report.render import Grid, Line
from cpmlho.study.report.robust import SMALL, Choice, choices, unfair
from cpmlho.study.report.rules import PAPERS, Case, Claim
from cpmlho.study.report.style import label_of
from cpmlho.study.report.tables import Table
from cpmlho.study.report.tables.claims import words
from cpmlho.study.report.tables.verdicts import CASE, decisive, verdict_of

JOINT, THRESHOLD = "J", "the threshold"
DEPENDS, UNFAIR, UNASKED = "depends on a choice", "not counted", "not registered"
COLUMNS = ["claim", *CASE, "registered", "robust", "choices", "evidence"]
JOINT_STATEMENT = "One way to read the method gives the values of Table 1 and their ranking (C1 and C2 together)."
CAPTION = (
    "The robust rules were made after the results were known and can only take claims away: cases that are unfair to"
    " the paper are not counted, a diverged run is the worst outcome, every difference has a smallest effect, and a"
    " claim that holds only with one choice where the paper leaves one open is marked with that choice. J: values and"
    " ranking together."
)


def numbers(study: Study) -> pd.DataFrame:
    """A row for each claim and case, and one for each reading on values and ranking together."""
    runs = measured_runs(study)
    every = study.ended.merge(runs[[*KEY, *MEASURED]], how="left", on=KEY)
    registered = study.table("verdicts").set_index(["claim", *CASE])["verdict"]
    rows = []
    for (claim_id, *key), group in groupby(asked(study), lambda each: (each[0].id, *each[1][:3])):
        same = list(group)  # one for each threshold
        verdict = str(registered[(claim_id, *key)])
        found = [list(choices(claim, case, runs, every)) for claim, case in same]
        judged = _robust(study, *same[0], verdict, [_merged(each) for each in zip(*found, strict=True)])
        rows.append({"claim": claim_id, **dict(zip(CASE, key, strict=True)), "registered": verdict, **judged})
    table = pd.DataFrame(rows, columns=COLUMNS)
    return pd.concat([table, pd.DataFrame(_joint(table), columns=COLUMNS)], ignore_index=True)


def _merged(same: tuple[Choice, ...]) -> tuple[Choice, pd.DataFrame]:
    """A choice, and its tests at every threshold."""
    return same[0], pd.DataFrame([part for choice in same for part in choice.parts])


def _robust(
    study: Study, claim: Claim, case: Case, registered: str, made: list[tuple[Choice, pd.DataFrame]]
) -> dict[str, str]:
    """The robust verdict of a claim in one case, the choices that it depends on, and what shows that."""
    if reason := unfair(claim, case):
        return {"robust": UNFAIR, "choices": "", "evidence": reason}
    strict = next(parts for choice, parts in made if choice.name == SMALL)
    verdict: str = verdict_of(strict)
    choice, evidence = "", in_words(study, strict)
    if registered == "not reproduced":
        verdict = "not reproduced"
    elif registered == "inconclusive" and verdict != "not reproduced":
        if len({verdict_of(own) for _, own in strict.groupby("threshold", dropna=False)}) > 1:
            verdict, choice = DEPENDS, THRESHOLD
    elif registered == "reproduced":
        other = [(each, parts) for each, parts in made if verdict_of(parts) != "reproduced"]
        if other and verdict != "not reproduced":
            verdict, choice = DEPENDS, ", ".join(each.name for each, _ in other)
            evidence = "; ".join(f"{each.otherwise}: {in_words(study, parts)}" for each, parts in other)
    return {"robust": verdict, "choices": choice, "evidence": evidence}


def in_words(study: Study, parts: pd.DataFrame) -> str:
    """The deciding test in short."""
    row = decisive(parts)
    quantity = str(row["quantity"]).partition("_by_200")
    dataset, test, effect, bounds = words(study, {**row, "quantity": "".join(quantity[:2])})
    if not row["n_seeds"]:
        return f"{dataset}, {test.words}: not run"
    if isnan(row["ci_low"]):
        wins = f"in {row['estimate']:.0f} of {row['n_seeds']} seeds"
        return f"{dataset}, {test.words}: {wins}, sign test p = {row['p']:.2f}"
    return f"{dataset}, {test.words}: {effect} {bounds}, n={row['n_seeds']}"


def _joint(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Values and ranking together, on the paper's split and against Δ-STN, for each reading."""
    last = table[table["split"] == "last"]
    values = last[last["claim"] == "C2"].set_index("reading")["robust"]
    ranking = last[(last["claim"] == "C1") & (last["comparator"] == PAPERS)].set_index("reading")["robust"]
    for reading in values.index.intersection(ranking.index):
        both = {"ranking": str(ranking[reading]), "values": str(values[reading])}
        verdict = "inconclusive"
        if "not reproduced" in both.values():
            verdict = "not reproduced"
        elif set(both.values()) == {"reproduced"}:
            verdict = "reproduced"
        said = "; ".join(f"{name}: {found}" for name, found in both.items())
        yield dict(zip(COLUMNS, [JOINT, reading, PAPERS, "last", UNASKED, verdict, "", said], strict=True))


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each claim and case."""
    header = ["Claim", "Reading", "Against", "Split", "Registered", "Robust", "Depends on", "Deciding test"]
    lines: list[Line] = [
        [
            *(row["claim"], row["reading"], label_of(row["comparator"]) if row["comparator"] else "–", row["split"]),
            *(row["registered"], row["robust"], row["choices"], row["evidence"]),
        ]
        for row in frame.to_dict("records")
    ]
    return [Grid("Robust verdicts", header, lines, CAPTION, study.protocol.note)]


TABLE = Table(numbers, view)
