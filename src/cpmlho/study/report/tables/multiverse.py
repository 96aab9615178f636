"""The specification curve: CPMLHO with other choices, minus Δ-STN and minus itself without its two parts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from cpmlho.study.report.frame import LOSS, MISSING, Study, by_method, finished, framed
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
    "Each row is CPMLHO with both of its parts, with another choice where the paper leaves one open: its final"
    " validation loss minus Δ-STN's with the same training and split, and minus that of its own baseline, the same"
    " network without the two parts; paired by seed, 95 % Student-t intervals, not corrected for multiple comparisons."
    " Admissible: no seed diverged, and g, which the cutting planes bound, fell by a fifth or more in every layer; not"
    " known after one epoch, as g is recorded at the end of each."
)


def numbers(study: Study) -> pd.DataFrame:
    """A row for each dataset and specification, the lowest difference to Δ-STN first."""
    rows = framed(_rows(study))
    if rows.empty:
        return rows
    ranks = {dataset: rank for rank, dataset in enumerate(study.protocol.run.datasets)}
    order = rows.assign(rank=rows["dataset"].map(ranks))
    return order.sort_values(["rank", "difference_mean"], kind="stable", ignore_index=True).drop(columns="rank")


def specifications(study: Study) -> Iterator[tuple[RunSpec, pd.DataFrame]]:
    """Each reading that the protocol asks for, with its runs."""
    for dataset, name, runs in by_method(study.runs):
        spec = study.spec(dataset, name)
        if is_specification(spec):
            yield spec, runs


def progress(study: Study) -> list[str]:
    """How many runs each dataset's specifications have, where some are missing."""
    lines = []
    asked = [(spec.dataset, runs["status"] != MISSING) for spec, runs in specifications(study)]
    for dataset in study.protocol.run.datasets:
        own = [there for name, there in asked if name == dataset]
        made, every = sum(each.sum() for each in own), sum(map(len, own))
        if made < every:
            lines.append(f"{study.folder(dataset)}: {made} of {every} runs of {len(own)} specifications are finished.")
    return lines


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    for spec, every in specifications(study):
        dataset, name, ended = spec.dataset, spec.method, every[every["status"] != MISSING]
        if ended.empty:
            continue
        runs, ratio = study.finished[study.finished["dataset"] == dataset], ended["g_ratio"].mean()
        comparator = _counterpart(study, spec, asdict(spec.settings))
        warm_up = {"warm_up": asdict(spec.settings)["warm_up"]}  # trained alike
        rival = _counterpart(study, spec, asdict(study.protocol.methods[PAPERS]) | warm_up)
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
    """A line for each row, and in the caption what they show."""
    columns = {
        "Specification": method_of("specification"),
        "Changes": lambda row: row["changes"],
        "Minus Δ-STN": lambda row: number(row["difference_mean"], sign="+"),
        "95 % interval": interval_of("difference"),
        "Own baseline": lambda row: label_of(row["comparator"]) if row["comparator"] else "–",
        "Minus its own": lambda row: number(row["own_mean"], sign="+"),
        "Its interval": interval_of("own"),
        "g, last / first": lambda row: number(row["g_ratio"], 2),
        "Diverged": lambda row: str(row["diverged"]),
        "Admissible": _admissible,
        "n": lambda row: str(row["difference_n_seeds"]),
    }
    said = [sentence(study.folder(name), rows) for name, rows in frame.groupby("dataset", sort=False)]
    compared = study.among([PAPERS, *frame.get("specification", ()), *frame.get("comparator", ())])
    return listed(study, "Specifications", columns, frame, " ".join([*said, *progress(study), CAPTION]), compared)


def _admissible(row: Mapping[str, Any]) -> str:
    if math.isnan(row["g_ratio"]) and not row["diverged"]:
        return "not known"
    return "yes" if row["admissible"] else "no"


def sentence(dataset: str, rows: pd.DataFrame) -> str:
    """What the specifications show on one dataset."""
    counts = [int(each.sum()) for each in sides(rows)]
    return (
        f"{dataset}: of {len(rows)} specifications, {counts[0]} end below Δ-STN, {counts[1]} below their own baseline"
        f" and {counts[2]} above it; in {int((rows['diverged'] > 0).sum())} a seed diverged, and"
        f" {int(rows['admissible'].sum())} are admissible."
    )


def sides(rows: pd.DataFrame) -> tuple[pd.Series[bool], pd.Series[bool], pd.Series[bool]]:
    """Whether each specification is below Δ-STN, below its own baseline, and above its own baseline."""
    return rows["difference_ci_high"] < 0, rows["own_ci_high"] < 0, rows["own_ci_low"] > 0


TABLE = Table(numbers, view)
