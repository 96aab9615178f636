"""`make gpu-check`: checks that a GPU repeats and resumes runs bit-identically and agrees with the CPU.

Each method trains the paper's networks for two epochs on the tests' small subset of the real data.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import Row, show
from cpmlho.study.data import fetch
from cpmlho.study.harness.run import execute
from cpmlho.study.methods import METHODS
from cpmlho.study.protocol import Protocol, load
from cpmlho.study.results import HISTORY, Observer, read_rows
from cpmlho.study.spec import RunKey

AGREEMENT = 0.02  # largest accepted difference of final validation losses; the random streams of the two devices differ


class StopAfterFirst(Observer):
    """Interrupts a run after its first evaluation."""

    def evaluated(self, *arguments: object) -> None:
        """Raise KeyboardInterrupt."""
        raise KeyboardInterrupt


def protocol(folder: Path) -> Protocol:
    """Return the smoke protocol with the paper's networks, and write its data into `folder`."""
    networks = {name: each.network.model_dump() for name, each in load([Path("config.yaml")]).datasets.items()}
    overrides = {
        "data": {"dir": str(folder)},
        "datasets": {n: {"epochs": 2, "network": x} for n, x in networks.items()},
    }
    small = load([Path("config.yaml"), Path("tests/smoke.yaml")], overrides)
    for dataset in small.datasets.values():
        fetch(dataset, small.data, lambda line: None)
    return small


def losses(folder: Path) -> list[Mapping[str, Any]]:
    """Return the evaluations of a run without their times."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_rows(folder / HISTORY)]


def check(device: str, methods: list[str]) -> Iterator[Row]:
    """Yield a row per dataset and method: does the run repeat, does it resume, does it agree with the CPU's?"""
    with TemporaryDirectory() as name:
        small = protocol(Path(name))
        for dataset in small.datasets:
            for method in methods:
                spec = small.resolve(RunKey(dataset, method, 0)).model_copy(update={"precision": "float32"})
                folders, seconds = {}, {}
                for what in ("cpu", "first", "again", "resumed"):
                    folders[what] = Path(name, dataset, method, what)
                    on = spec.model_copy(update={"device": "cpu" if what == "cpu" else device})
                    if what == "resumed":
                        with contextlib.suppress(KeyboardInterrupt):
                            execute(on, folders[what], [StopAfterFirst()], print, time.monotonic())
                    seconds[what] = execute(on, folders[what], [], print, time.monotonic()).train_seconds
                found = {what: losses(folder) for what, folder in folders.items()}
                apart = math.fabs(found["first"][-1]["val_loss"] - found["cpu"][-1]["val_loss"])
                yield {
                    "dataset": dataset,
                    "method": method,
                    "repeats": found["first"] == found["again"],
                    "resumes": found["first"] == found["resumed"],
                    "validation loss minus the CPU's": apart,
                    "agrees": apart < AGREEMENT,
                    "times as fast": seconds["cpu"] / seconds["again"],
                }


def main() -> None:
    """Check the GPU; without one, the CPU against itself. Exit status 1 if a check fails."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        print("torch finds no GPU. The CPU is compared with itself, which tests no GPU.")
    rows = show(f"{device} and the CPU", check(device, list(METHODS)))
    sys.exit(not all(row[name] for row in rows for name in ("repeats", "resumes", "agrees")))


if __name__ == "__main__":
    main()
