"""Run the benchmark, print its tables, and write results/benchmark.json."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks import Row
from benchmarks.library import costs
from benchmarks.parts import parts
from benchmarks.published import PublishedCodeError, find, measure_published
from benchmarks.runs import commands, whole_runs
from benchmarks.steps import measure
from cpmlho.core.precision import native_bfloat16
from cpmlho.study.harness.provenance import git_commit, versions

OUTPUT = Path("results/benchmark.json")


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


def machine() -> dict[str, str]:
    """What computes, and how it multiplies bfloat16."""
    on_gpu = torch.cuda.is_available()
    name = (
        torch.cuda.get_device_name() if on_gpu else torch.cpu.get_capabilities().get("cpu_name", platform.processor())
    )
    native = native_bfloat16(torch.device("cuda" if on_gpu else "cpu"))
    return {"machine": name, "bfloat16": "native" if native else "in float32's products"}


def main() -> None:
    """Steps on one thread, then on all; where their time goes; the published code; then whole runs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help="only these: steps, parts, runs, library, commands, published"
    )
    parser.add_argument("--published", type=Path, metavar="FOLDER", help="a checkout of the published Delta-STN code")
    arguments = parser.parse_args()
    threads = sorted({1, os.cpu_count() or 1})
    sections: dict[str, Callable[[], list[Row]]] = {
        "steps": lambda: [row for n in threads for row in show(f"Steps, batch 128, {n} threads", measure(n))],
        "parts": lambda: show("Where a Delta-STN cycle's time goes, 1 thread", parts()),
        "runs": lambda: show("Whole runs: the share for all epochs, computed from one epoch and two", whole_runs()),
        "library": lambda: show("What tuning costs, processor time on 1 thread", costs()),
        "commands": lambda: show("Commands", commands()),
    }
    if arguments.published:
        try:
            folder = find(arguments.published)
        except PublishedCodeError as error:
            parser.error(str(error))
        title = "A cycle of the published code and of ours, side by side: medians of processor time, 1 thread"
        sections["published"] = lambda: show(title, measure_published(folder))
    if unknown := sorted({*arguments.sections} - {*sections}):
        parser.error(f"no section {unknown[0]}; there are {', '.join(sections)}")
    wanted = arguments.sections or list(sections)
    content: dict[str, Any] = {**machine(), "git_commit": git_commit(), "versions": versions()}
    content |= {name: measured() for name, measured in sections.items() if name in wanted}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\nWritten to {OUTPUT}")


if __name__ == "__main__":
    main()
