"""The specification curve: each reading of CPMLHO that was run, against Δ-STN and against itself without its parts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from cpmlho.study.report.frame import LOSS, MISSING, Study, by_method, finished
from cpmlho.study.report.render import Grid, interval_of, listed, method_of, number
from cpmlho.study.report.rules import PAPERS, rules
from cpmlho.study.report.selection import is_specification
from cpmlho.study.report.stats import paired
from cpmlho.study.report.style import label_of
from cpmlho.study.report.tables import Table
from cpmlho.study.spec import RunSpec

FELL = 0.8  # of its first value: to where the cutting planes of an admissible reading have brought g
ALIKE = set(RunSpec.model_fields) - {"method", "seed", "changes", "algorithm", "settings"}
CAPTION = (
    "Readings of CPMLHO with both of its parts, by their final validation loss minus Δ-STN's of the same training and"
    " split, and minus that of the same network without the two parts; paired by seed, 95 % Student-t intervals, each"
    " for itself. Admissible: finite, and g, which the cutting planes are there to bring down, fell by a fifth or more;"
    " that is not known, and not counted, where one epoch was trained, as g is recorded at the end of each."
)


def numbers(study: Study) -> pd.DataFrame:
    """A row for each dataset and specification, the lowest difference to Δ-STN first."""
    rows = list(_rows(study))
    if not rows:
        return pd.DataFrame(columns=["dataset"])
    ranks = {dataset: rank for rank, dataset in enumerate(study.protocol.run.datasets)}
    order = pd.DataFrame(rows).assign(rank=lambda frame: frame["dataset"].map(ranks))
    return order.sort_values(["rank", "difference_mean"], kind="stable", ignore_index=True).drop(columns="rank")


def specifications(study: Study) -> Iterator[tuple[RunSpec, pd.DataFrame]]:
    """Each reading that the protocol asks for, with its runs."""
    for dataset, name, runs in by_method(study.runs):
        spec = study.spec(dataset, name)
        if is_specification(spec):
            yield spec, runs


def progress(study: Study) -> list[str]:
    """How far each dataset's specifications are; nothing of those that all are run."""
    lines = []
    asked = [(spec.dataset, runs["status"] != MISSING) for spec, runs in specifications(study)]
    for dataset in study.protocol.run.datasets:
        own = [there for name, there in asked if name == dataset]
        begun, made, every = sum(each.any() for each in own), sum(each.sum() for each in own), sum(map(len, own))
        if made < every:
            folder = study.protocol.datasets[dataset].folder
            lines.append(f"{folder} half done: {begun} of {len(own)} specifications, {made} of {every} runs of them.")
    return lines


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    for spec, every in specifications(study):
        dataset, name, ended = spec.dataset, spec.method, every[every["status"] != MISSING]
        if ended.empty:
            continue
        runs, ratio = study.finished[study.finished["dataset"] == dataset], ended["g_ratio"].mean()
        comparator = _counterpart(study, spec, asdict(spec.settings))
        rival = _counterpart(study, spec, asdict(study.protocol.methods[PAPERS]))
        yield {
            **{"dataset": dataset, "specification": name, "changes": json.dumps(spec.changes)},
            **paired(runs, name, rival, LOSS).named("difference"),
            "comparator": comparator,
            **paired(runs, name, comparator, LOSS).named("own"),
            **{"g_ratio": ratio, "diverged": len(ended) - len(finished(ended))},
            "admissible": bool(len(ended) == len(finished(ended)) and ratio <= FELL),
        }


def _counterpart(study: Study, spec: RunSpec, settings: dict[str, Any]) -> str:
    """The comparator with these settings, as far as it has them, and all else alike; empty if none is run."""
    for name in study.runs[study.runs["dataset"] == spec.dataset]["method"].unique():
        other = study.spec(spec.dataset, name)
        alike = all(getattr(other, field) == getattr(spec, field) for field in ALIKE)
        if other.algorithm in {each.own for each in rules().readings} and alike:
            theirs = asdict(other.settings)
            if theirs == {field: settings[field] for field in theirs}:
                return str(name)
    return ""


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each row, and in the caption how many there are and what they show."""
    columns = {
        "Specification": method_of("specification"),
        "Changes": lambda row: row["changes"],
        "Minus Δ-STN": lambda row: number(row["difference_mean"], sign="+"),
        "95 % interval": interval_of("difference"),
        "Own comparator": lambda row: label_of(row["comparator"]) if row["comparator"] else "–",
        "Minus it": lambda row: number(row["own_mean"], sign="+"),
        "Its interval": interval_of("own"),
        "g, end over start": lambda row: "–" if math.isnan(row["g_ratio"]) else f"{row['g_ratio']:.3g}",
        "Diverged": lambda row: str(row["diverged"]),
        "Admissible": _admissible,
        "n": lambda row: str(row["difference_n_seeds"]),
    }
    datasets = study.protocol.datasets
    said = [sentence(datasets[str(name)].folder, rows) for name, rows in frame.groupby("dataset", sort=False)]
    caption = " ".join([*said, *progress(study), CAPTION])
    compared = study.among([PAPERS, *frame.get("specification", ()), *frame.get("comparator", ())])
    return listed(study.protocol, "Specifications", columns, frame, caption, compared)


def _admissible(row: Mapping[str, Any]) -> str:
    if math.isnan(row["g_ratio"]) and not row["diverged"]:
        return "not known"
    return "yes" if row["admissible"] else "no"


def sentence(dataset: str, rows: pd.DataFrame) -> str:
    """What a reader keeps of the specifications on one dataset."""

    def below(chosen: pd.DataFrame) -> list[int]:
        return [int((chosen[f"{against}_ci_high"] < 0).sum()) for against in ("difference", "own")]

    (first, own), admissible = below(rows), rows[rows["admissible"]]
    return (
        f"{dataset}: of {len(rows)} specifications {first} show{'s' if first == 1 else ''} CPMLHO below Δ-STN and {own}"
        f" below its own comparator; {int((rows['diverged'] > 0).sum())} diverged; of the {len(admissible)} admissible"
        " {} and {}.".format(*below(admissible))
    )


TABLE = Table(numbers, view)
