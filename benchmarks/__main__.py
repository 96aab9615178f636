"""Run the benchmarks, print their tables, and write results/benchmark.json."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

from benchmarks import show
from benchmarks.library import costs
from benchmarks.published import PublishedCodeError, find, measure_published
from benchmarks.steps import measure
from cpmlho.study.harness.provenance import git_commit, versions

OUTPUT = Path("results/benchmark.json")


def main() -> None:
    """Measure training cycles of the study's networks, the cost of tuning, and with --published the published code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("--published", type=Path, metavar="FOLDER", help="a checkout of the published Delta-STN code")
    folder = parser.parse_args().published
    sections = {
        "steps": ("Training cycles, batch 128, processor time on one thread", measure),
        "library": ("The cost of tuning, processor time on one thread", costs),
    }
    if folder:
        try:
            find(folder)
        except PublishedCodeError as error:
            parser.error(str(error))
        sections["published"] = (
            "A cycle of the published code and of ours, in turns",
            lambda: measure_published(folder),
        )
    processor = torch.cpu.get_capabilities().get("cpu_name", platform.processor())
    content: dict[str, Any] = {"processor": processor, "git_commit": git_commit(), "versions": versions()}
    content |= {name: show(title, rows()) for name, (title, rows) in sections.items()}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\nWritten to {OUTPUT}")


if __name__ == "__main__":
    main()
