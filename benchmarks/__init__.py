"""The project's benchmarks: they measure times, which no test asserts."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

Row = dict[str, Any]  # of a table, by column


def in_turns(acts: dict[str, Callable[[], object]], repeats: int = 7) -> dict[str, float]:
    """Return the median processor time of each act in milliseconds, over rounds in which the acts take turns."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    for turn in range(repeats + 1):
        for name, act in acts.items():
            start = time.process_time()
            act()
            if turn:  # the first round warms up
                times[name].append((time.process_time() - start) * 1e3)
    return {name: statistics.median(taken) for name, taken in times.items()}


def show(title: str, rows: Iterable[Row]) -> list[Row]:
    """Print rows as a Markdown table while they arrive, and return them."""

    def text(value: Any) -> str:
        return ("" if math.isnan(value) else f"{value:.3g}") if isinstance(value, float) else str(value)

    shown: list[Row] = []
    for row in rows:
        if not shown:
            print(f"\n## {title}\n\n| {' | '.join(row)} |\n|{' --- |' * len(row)}", flush=True)
        print(f"| {' | '.join(map(text, row.values()))} |", flush=True)
        shown.append(row)
    return shown
