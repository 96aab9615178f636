"""Which runs give the same numbers: by their files, or by what is known of the code that made them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

from cpmlho.study.harness.provenance import code_digest
from cpmlho.study.results import RESULT, ResultError, read_result
from cpmlho.study.settings import Strict

TIMES = {"seconds", "train_seconds", "train_cpu_seconds", "evaluation_seconds", "total_seconds", "peak_memory_mb"}
NUMBERS = {"status", "final", "best", "hyperparameters", "steps"}  # of result.json


class Change(Strict):
    """A change of the code that left the numbers of earlier runs as they were, and what shows it."""

    change: str
    compared: str
    codes: dict[str, Annotated[list[str], Field(min_length=2, max_length=2)]]  # digests before and after, by algorithm


@cache
def known_changes() -> list[Change]:
    """All of `equal_code.yaml`, oldest first."""
    text = (files("cpmlho.study.report") / "equal_code.yaml").read_text(encoding="utf-8")
    return [Change.model_validate(each) for each in yaml.safe_load(text)]


def changes_after(algorithm: str, code: str) -> list[Change]:
    """The changes since the code with this digest, as far as they lead on from each other."""
    passed = []
    for change in known_changes():
        before, after = change.codes.get(algorithm, ("", ""))
        if code == before:
            passed.append(change)
            code = after
    return passed


def outdated(algorithm: str, code: str) -> bool:
    """Whether other code lies between the one with this digest and the present one than the known changes."""
    passed = changes_after(algorithm, code)
    return (passed[-1].codes[algorithm][1] if passed else code) != code_digest(algorithm)


def numbers(folder: Path) -> str:
    """A run's numbers as text, every digit, without what it took in time and memory.

    Raises:
        ResultError: result.json is missing or damaged.
    """
    content: dict[str, object] = {RESULT: json.loads(read_result(folder / RESULT).model_dump_json(include=NUMBERS))}
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{name: cell for name, cell in row.items() if name not in TIMES} for row in csv.DictReader(file)]
        content[path.name] = rows
    return json.dumps(content)


def compare(ours: Path, theirs: Path, say: Callable[[str], None]) -> bool:
    """Compare the runs that lie at the same place under both folders; say which differ; whether all are equal.

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
    return not unlike
