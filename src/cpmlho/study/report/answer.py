"""The answer at the top of the page: what came of the claims, by how much, and whether it is so in every reading."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import starmap
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cpmlho.study.report.frame import LOSS, Study, read_csv
from cpmlho.study.report.paper import paper_effect
from cpmlho.study.report.render import interval, number
from cpmlho.study.report.rules import PAPERS, Reading, are_judged, rules
from cpmlho.study.report.stats import FEWEST_SEEDS, Summary, paired
from cpmlho.study.report.style import label_of
from cpmlho.study.report.tables import multiverse, splits, step_size
from cpmlho.study.results import ResultError

MIXED = "depends on the case"


def answer(study: Study) -> Iterator[str]:
    """The answer in plain words: the claims, where each reading ends, and what other step sizes and readings show."""
    yield _judgement(study)
    yield from (
        f"In the {reading} reading CPMLHO's final validation loss is {where}." for reading, where in standings(study)
    )
    kept = [say(" and ".join(own), pd.concat(own.values())) for say, own in _kept(study) if say is not splits.sentence]
    if kept:
        yield f"{' '.join(kept)} This is exploratory."


def details(study: Study) -> Iterator[str]:
    """By how much: the differences with their intervals, and what is kept of the splits, step sizes and readings."""
    for text, method, other in comparisons(study):
        yield f"{text}: {'; '.join(_differences(study, method, other)) or 'no two seeds of both'}."
    for say, own in _kept(study):
        yield from starmap(say, own.items())


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


def standings(study: Study) -> Iterator[tuple[str, str]]:
    """Each reading that is run, with the others whose loss its own is below, above, or not told from, and where."""
    done = study.finished
    for reading, others in _readings(study):
        clauses = []
        for other in others:
            found = {
                study.protocol.datasets[name].folder: paired(done[done["dataset"] == name], reading.method, other, LOSS)
                for name in study.protocol.run.datasets
            }
            sides = {folder: _side(each) for folder, each in found.items()}
            for side in dict.fromkeys(sides.values()):
                on = " and ".join(folder for folder, each in sides.items() if each == side)
                clauses.append(f"{side} {_loss_of(other)} on {on}")
        yield reading.name, ", ".join(clauses)


def _side(found: Summary) -> str:
    if found.n_seeds < FEWEST_SEEDS:
        return "of too few seeds to be told from"
    return "below" if found.ci_high < 0 else "above" if found.ci_low > 0 else "not told from"


def comparisons(study: Study) -> Iterator[tuple[str, str, str]]:
    """Each reading of CPMLHO that is run against Δ-STN, its own comparator and no tuning, with its words."""
    for reading, others in _readings(study):
        words = f"The final validation loss of {label_of(reading.method)}, of which less is better, minus"
        for other in others:
            yield f"{words} {_loss_of(other)}", reading.method, other
            words = "Minus"


def _readings(study: Study) -> Iterator[tuple[Reading, list[str]]]:
    """The readings that are run, each with what it is set against."""
    for reading in rules().readings:
        if reading.method in study.protocol.run.methods:
            yield reading, list(dict.fromkeys([PAPERS, reading.own, "fixed"]))


def _loss_of(method: str) -> str:
    return "that of no tuning at all" if method == "fixed" else f"{label_of(method)}'s"


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


def _kept(study: Study) -> Iterator[tuple[Callable[[str, pd.DataFrame], str], dict[str, pd.DataFrame]]]:
    """The sentences on splits, step sizes and specifications, each with the rows of every dataset that was run."""
    curve = beside(study)
    for say, rows, fewest in (
        (splits.sentence, study.table("splits"), 1),
        (step_size.sentence, step_size.matched(study.table("step_size")), 1),
        (multiverse.sentence, study.table("multiverse") if curve is None else curve.rows, len(rules().readings) + 1),
    ):
        parts = rows.groupby("dataset", sort=False)
        own = {study.protocol.datasets[str(name)].folder: part for name, part in parts if len(part) >= fewest}
        if own:
            yield say, own


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
    """A claim with its verdict; where its cases differ, how many of them are reproduced."""

    claim: str
    verdict: str
    words: str
    statement: str


def strip(study: Study) -> Iterator[Chip]:
    """Each claim's verdict, over its readings, comparators and splits; nothing where none is judged."""
    if not are_judged(study.protocol):
        return
    for claim, cases in study.table("verdicts").groupby("claim", sort=False):
        found = cases["verdict"]
        verdict = words = str(found.iloc[0])
        if found.nunique() > 1:
            verdict, words = MIXED, f"reproduced in {sum(found == 'reproduced')} of {len(found)} cases"
        yield Chip(str(claim), verdict, words, str(cases["statement"].iloc[0]))
