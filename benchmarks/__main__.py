"""Run the benchmark, print its tables, and write results/benchmark.json."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.parts import parts
from benchmarks.runs import commands, whole_runs
from benchmarks.steps import measure
from cpmlho.study.harness.provenance import git_commit, versions

OUTPUT = Path("results/benchmark.json")
Row = dict[str, Any]


def text(value: Any) -> str:
    """A cell; NaN is an empty one."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    return str(value)


def show(title: str, rows: Iterable[Row]) -> list[Row]:
    """Print rows as a Markdown table while they come."""
    shown: list[Row] = []
    for row in rows:
        if not shown:
            print(f"\n## {title}\n\n| {' | '.join(row)} |\n|{' --- |' * len(row)}", flush=True)
        print(f"| {' | '.join(map(text, row.values()))} |", flush=True)
        shown.append(row)
    return shown


def main() -> None:
    """Steps on one thread, then on all; where their time goes; then whole runs."""
    threads = sorted({1, os.cpu_count() or 1})
    content = {
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor(),
        "git_commit": git_commit(),
        "versions": versions(),
        "steps": [row for n in threads for row in show(f"Steps, batch 128, {n} threads", measure(n))],
        "parts": show("Where a Delta-STN cycle's time goes, 1 thread", parts()),
        "runs": show("Whole runs: one epoch measured, the share for all epochs computed from it", whole_runs()),
        "commands": show("Commands", commands()),
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\nWritten to {OUTPUT}")


if __name__ == "__main__":
    main()
