"""Comparison of two sets of the same runs: bit-identical, or how far apart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import stdev
from typing import NamedTuple

from cpmlho.study.results import METRICS, RESULT, ResultError, own_tables, read_result, read_rows
from cpmlho.study.spec import RunKey

NUMBERS = {"status", "final", "best", "hyperparameters", "steps"}  # of result.json: the same wherever a run is made
TIMES = {  # of result.json and of the tables: differ each time
    *("seconds", "train_seconds", "train_cpu_seconds", "evaluation_seconds", "total_seconds"),
    *("peak_memory_mb", "started", "ended"),
}
TOLERANCE = 1.0  # standard deviations over seeds; rounding on other hardware has moved no metric by more than 0.35
Finals = Mapping[RunKey, Mapping[str, float]]  # the final metrics of each run


class Agreement(NamedTuple):
    """The largest difference between two sets of runs."""

    largest: float  # in standard deviations over the seeds
    where: str  # the run and its metric
    compared: int  # runs


def numbers(folder: Path) -> str:
    """Return a run's numbers as text with every digit, without times and memory.

    Raises:
        ResultError: a file is missing or damaged.
    """
    content: dict[str, object] = {RESULT: json.loads(read_result(folder / RESULT).model_dump_json(include=NUMBERS))}
    for path in own_tables(folder):
        content[path.name] = [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(path)]
    return json.dumps(content)


def agreement(ours: Finals, theirs: Finals) -> Agreement | None:
    """Return the largest difference of a final metric between the runs that are in both sets; None if none are.

    Its unit is the metric's standard deviation over the seeds of that dataset and method, in the set with more of
    them. A difference is infinite if that deviation is 0 or unknown, or if only one of the two runs has diverged.
    """
    found = []
    for key in sorted(ours.keys() & theirs.keys()):
        for metric in METRICS:
            values = [
                [each[metric] for other, each in runs.items() if other[:2] == key[:2] and math.isfinite(each[metric])]
                for runs in (ours, theirs)
            ]
            most = max(values, key=len)
            unit = stdev(most) if len(most) > 1 else 0.0
            a, b = ours[key][metric], theirs[key][metric]
            same = a == b or (math.isnan(a) and math.isnan(b))
            distance = 0.0 if same else abs(a - b) / unit if unit else math.inf
            found.append((math.inf if math.isnan(distance) else distance, f"{key}, {metric}"))
    return Agreement(*max(found, key=lambda each: each[0]), len(found) // len(METRICS)) if found else None


def compare(ours: Path, theirs: Path, say: Callable[[str], None], tolerance: float | None = None) -> bool:
    """Compare the runs that lie at the same place under two folders; print which differ, and by how much.

    Args:
        ours: a folder with runs.
        theirs: a folder with the same runs made elsewhere.
        say: prints a line.
        tolerance: the largest difference of a final metric that counts as equal, in standard deviations over seeds;
            None: every digit of every file counts.

    Returns:
        Whether they agree.

    Raises:
        ResultError: a result is damaged, or no run is in both.
    """
    here, there = ({path.parent.relative_to(folder) for path in folder.rglob(RESULT)} for folder in (ours, theirs))
    both = sorted(here & there)
    if not both:
        raise ResultError(f"{ours} and {theirs}: no run lies at the same place under both, as in SEED/{RESULT}")
    finals: tuple[dict[RunKey, dict[str, float]], ...] = ({}, {})
    differ = 0
    for place in both:
        results = [read_result(folder / place / RESULT) for folder in (ours, theirs)]
        for found, result in zip(finals, results, strict=True):
            found[results[0].key] = asdict(result.final)
        if numbers(ours / place) != numbers(theirs / place):
            differ += 1
            losses = " and ".join(f"{result.final.val_loss:.6f}" for result in results)
            say(f"{place}: differs; final validation loss {losses}")
    alone = len(here ^ there)
    say(f"{len(both)} runs in both folders: {len(both) - differ} identical, {differ} different; {alone} in one only")
    if not differ:
        return True
    apart = agreement(*finals)
    assert apart is not None
    limit = "" if tolerance is None else f"; the tolerance is {tolerance:g}"
    largest = f"{apart.largest:.3g} standard deviations over seeds ({apart.where})"
    say(f"largest difference of a final metric: {largest}{limit}")
    return tolerance is not None and apart.largest <= tolerance
