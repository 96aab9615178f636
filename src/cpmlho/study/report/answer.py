"""The answer at the top of the page: what came of the claims, by how much, and whether it is so in every reading."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cpmlho.study.report.frame import LOSS, Study, read_csv
from cpmlho.study.report.paper import paper_effect
from cpmlho.study.report.render import interval, number
from cpmlho.study.report.rules import PAPERS, are_judged, rules
from cpmlho.study.report.stats import paired
from cpmlho.study.report.style import label_of
from cpmlho.study.report.tables import multiverse, splits, step_size
from cpmlho.study.results import ResultError


def answer(study: Study) -> Iterator[str]:
    """The answer in a few sentences: the claims, the differences, and what other splits, steps and readings show."""
    yield _judgement(study)
    for text, method, other in comparisons(study):
        yield f"{text}: {'; '.join(_differences(study, method, other)) or 'no two seeds of both'}."
    yield from sentences(study)


def _judgement(study: Study) -> str:
    claims = len(rules().claims)
    if not are_judged(study.protocol):
        methods = " or ".join(reading.method for reading in rules().readings)
        return f"None of the paper's {claims} claims is judged here: that takes runs of {methods}."
    verdicts = study.table("verdicts")
    counts = verdicts["verdict"].value_counts()
    parts = [f"{counts.get(name, 0)} {name}" for name in ("reproduced", "not reproduced", "inconclusive")]
    cases = "" if len(verdicts) == claims else f" in {len(verdicts)} cases"
    which = "".join(f" Reproduced {each}." for each in reproduced(verdicts))
    return f"Of the paper's {claims} claims{cases}, on the runs below: {', '.join(parts)}.{which}"


def reproduced(verdicts: pd.DataFrame) -> Iterator[str]:
    """For each reading and comparator, the claims that are reproduced, and which of them rest on few seeds."""
    found = verdicts[verdicts["verdict"] == "reproduced"]
    for (reading, comparator), own in found.groupby(["reading", "comparator"], sort=False):
        few = own.groupby("claim", sort=False)["exploratory"].all()
        claims = ", ".join(f"{claim} (exploratory)" if each else str(claim) for claim, each in few.items())
        against = f", against {label_of(str(comparator))}" if comparator else ""
        yield f"in the {reading} reading{against}: {claims}"


def comparisons(study: Study) -> Iterator[tuple[str, str, str]]:
    """Each reading of CPMLHO that is run against Δ-STN, its own comparator and no tuning, with its words."""
    for reading in rules().readings:
        if reading.method in study.protocol.run.methods:
            words = f"The final validation loss of {label_of(reading.method)}, of which less is better, minus"
            for other in dict.fromkeys([PAPERS, reading.own, "fixed"]):
                name = "that of no tuning at all" if other == "fixed" else f"{label_of(other)}'s"
                yield f"{words} {name}", reading.method, other
                words = "Minus"


def _differences(study: Study, method: str, other: str) -> Iterator[str]:
    """A method's final validation loss minus another's on each dataset, in words."""
    done = study.finished
    for dataset in study.protocol.run.datasets:
        found = paired(done[done["dataset"] == dataset], method, other, LOSS)
        if found.n_seeds < 2:
            continue
        effect = paper_effect(dataset, "cpmlho", other, "val_loss")
        paper = "" if effect is None else f", where the paper prints {effect:+.3f}"
        bounds = f"{interval(found.ci_low, found.ci_high)}, {found.n_seeds} seeds"
        yield f"{number(found.mean, sign='+')} on {study.protocol.datasets[dataset].folder} ({bounds}{paper})"


def sentences(study: Study) -> Iterator[str]:
    """What is kept of the splits, the step size and the specifications, each as far as it was run."""
    curve = beside(study)
    for table, say, rows in (
        ("splits", splits.sentence, study.table("splits")),
        ("step_size", step_size.sentence, step_size.matched(study.table("step_size"))),
        ("multiverse", multiverse.sentence, study.table("multiverse") if curve is None else curve.rows),
    ):
        for dataset, own in rows.groupby("dataset", sort=False):
            if table != "multiverse" or len(own) > len(rules().readings):
                yield say(study.protocol.datasets[str(dataset)].folder, own)


class Beside(NamedTuple):
    """The specification curve of another protocol: its rows, and its page as a link from this one."""

    rows: pd.DataFrame
    link: str


def beside(study: Study) -> Beside | None:
    """The specification curve that `multiverse` names; None where there is none, or it has not been made.

    Raises:
        ResultError: its table cannot be read.
    """
    folder = study.protocol.multiverse
    if folder is None or not (path := Path(folder) / "tables" / "multiverse.csv").is_file():
        return None
    try:
        rows = read_csv(path)
    except (OSError, ValueError):
        raise ResultError(f"{path}: damaged; make it again: python -m cpmlho tables with its protocol") from None
    return Beside(rows, Path(os.path.relpath(folder, study.protocol.results_dir), "report.html").as_posix())


class Chip(NamedTuple):
    """A claim with its verdict, in two words."""

    claim: str
    verdict: str
    statement: str


def strip(study: Study) -> Iterator[Chip]:
    """Each claim's verdict, or that it differs between its cases; nothing where none is judged."""
    if not are_judged(study.protocol):
        return
    for claim, cases in study.table("verdicts").groupby("claim", sort=False):
        found = cases["verdict"].unique()
        verdict = str(found[0]) if len(found) == 1 else "depends on the reading"
        yield Chip(str(claim), verdict, str(cases["statement"].iloc[0]))
