"""Which runs give the same numbers: by their files, or by what is known of the code that made them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from pathlib import Path
from statistics import stdev
from typing import Annotated, NamedTuple

import yaml
from pydantic import Field

from cpmlho.study.harness.provenance import code_digest
from cpmlho.study.results import METRICS, RESULT, ResultError, own_tables, read_result, read_rows
from cpmlho.study.spec import RunKey
from cpmlho.study.strict import Strict

TIMES = {
    *("seconds", "train_seconds", "train_cpu_seconds", "evaluation_seconds", "total_seconds"),
    *("peak_memory_mb", "started", "ended"),
}
TOLERANCE = 1.0  # of the seeds' standard deviation; other rounding alone has moved no metric by more than 0.35 of it
Finals = Mapping[RunKey, Mapping[str, float]]  # the final metrics of each run
NUMBERS = {"status", "final", "best", "hyperparameters", "steps"}  # of result.json


class Change(Strict):
    """A change of the code that left the numbers of earlier runs as they were, and what shows it."""

    change: str
    compared: str
    datasets: list[str] | None = None  # None: all
    codes: dict[str, Annotated[list[str], Field(min_length=2, max_length=2)]]  # digests before and after, by algorithm


@cache
def known_changes() -> list[Change]:
    """All of `equal_code.yaml`, oldest first."""
    text = (files("cpmlho.study.report") / "equal_code.yaml").read_text(encoding="utf-8")
    return [Change.model_validate(each) for each in yaml.safe_load(text)]


def changes_after(algorithm: str, code: str, dataset: str) -> list[Change]:
    """The changes since the code with this digest, as far as they hold on the dataset and lead on from each other."""
    passed = []
    for change in known_changes():
        before, after = change.codes.get(algorithm, ("", ""))
        if code == before and dataset in (change.datasets or [dataset]):
            passed.append(change)
            code = after
    return passed


def outdated(algorithm: str, code: str, dataset: str, further: tuple[Path, ...] = ()) -> bool:
    """Whether other code lies between the one with this digest and the present one than the known changes.

    Args:
        algorithm: of the run.
        code: its digest.
        dataset: of the run.
        further: the files of a user's own behind the dataset and its network.
    """
    passed = changes_after(algorithm, code, dataset)
    return (passed[-1].codes[algorithm][1] if passed else code) != code_digest(algorithm, further)


def numbers(folder: Path) -> str:
    """A run's numbers as text, every digit, without what it took in time and memory.

    Raises:
        ResultError: a file is missing or damaged.
    """
    content: dict[str, object] = {RESULT: json.loads(read_result(folder / RESULT).model_dump_json(include=NUMBERS))}
    for path in own_tables(folder):
        rows = [{name: cell for name, cell in row.items() if name not in TIMES} for row in read_rows(path)]
        content[path.name] = rows
    return json.dumps(content)


class Agreement(NamedTuple):
    """How far apart the runs of two sets are at most, in standard deviations over the seeds."""

    largest: float
    where: str  # the run and its metric
    compared: int


def agreement(ours: Finals, theirs: Finals) -> Agreement | None:
    """Compare the final metrics of the runs that are in both sets; None if there is none.

    The unit of each metric is its sample standard deviation over the seeds of that dataset and method, in the set that
    has more of them. A difference where the seeds have none, or are too few, is infinite; no difference is zero.
    """
    spreads, apart = {}, []
    for key in sorted(ours.keys() & theirs.keys()):
        for metric in METRICS:
            group = (key.dataset, key.method, metric)
            if group not in spreads:
                spreads[group] = _spread(max((_seeds(each, *group) for each in (ours, theirs)), key=len))
            a, b = ours[key][metric], theirs[key][metric]
            same = a == b or (math.isnan(a) and math.isnan(b))
            distance = 0.0 if same else abs(a - b) / spreads[group] if spreads[group] else math.inf
            apart.append((math.inf if math.isnan(distance) else distance, f"{key}, {metric}"))
    return Agreement(*max(apart, key=lambda each: each[0]), len(apart) // len(METRICS)) if apart else None


def _seeds(finals: Finals, dataset: str, method: str, metric: str) -> list[float]:
    return [each[metric] for key, each in finals.items() if (key.dataset, key.method) == (dataset, method)]


def _spread(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return stdev(finite) if len(finite) > 1 else 0.0


def compare(ours: Path, theirs: Path, say: Callable[[str], None], tolerance: float | None = None) -> bool:
    """Compare the runs that lie at the same place under both folders; say which differ, and by how much.

    Args:
        ours: a folder with runs.
        theirs: a folder with the same runs made elsewhere.
        say: prints a line.
        tolerance: the largest difference that is none, in standard deviations over the seeds; None: every digit counts.

    Returns:
        Whether they agree: within the tolerance, or to the last digit.

    Raises:
        ResultError: a result is damaged, or no run is in both.
    """
    here, there = ({path.parent.relative_to(folder) for path in folder.rglob(RESULT)} for folder in (ours, theirs))
    both = sorted(here & there)
    if not both:
        raise ResultError(f"{ours} and {theirs}: no run lies at the same place under both, as in SEED/{RESULT}")
    unlike = [place for place in both if numbers(ours / place) != numbers(theirs / place)]
    for place in unlike:
        a, b = (read_result(folder / place / RESULT).final.val_loss for folder in (ours, theirs))
        say(f"{place}: differs; final validation loss {a:.6f} and {b:.6f}")
    say(
        f"{len(both)} runs in both, {len(both) - len(unlike)} equal to the last digit, {len(unlike)} not;"
        f" {len(here ^ there)} runs in one alone"
    )
    if unlike:
        found = _apart(ours, theirs, both)
        say(
            f"the largest difference of a final metric is {found.largest:.3g} of the seeds' standard deviation"
            f" ({found.where})" + ("" if tolerance is None else f"; the tolerance is {tolerance:g}")
        )
        return tolerance is not None and found.largest <= tolerance
    return True


def _apart(ours: Path, theirs: Path, places: Sequence[Path]) -> Agreement:
    """The agreement of the runs at these places under both folders, named as ours are."""
    results = [(read_result(ours / place / RESULT), read_result(theirs / place / RESULT)) for place in places]
    found = agreement(*({pair[0].key: asdict(pair[i].final) for pair in results} for i in (0, 1)))
    assert found is not None
    return found
