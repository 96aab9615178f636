"""Where the time of a Delta-STN cycle goes, by torch's own profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import Row
from benchmarks.steps import CASES, steps_of
from cpmlho.study.harness.hardware import DTYPES, choose_device

CYCLES = 5
SHOWN = 8  # operators, the longest first


def shares(act: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Each operator's own part of the time of all, without that of the operators it calls."""
    act()
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        for _ in range(CYCLES):
            act()
    events = profiler.key_averages()
    times = {each.key: each.self_device_time_total if on_gpu else each.self_cpu_time_total for each in events}
    return {name.removeprefix("aten::"): taken / sum(times.values()) for name, taken in times.items()}


def parts() -> Iterator[Row]:
    """A row for each case and precision, on one thread."""
    torch.set_num_threads(1)
    device = choose_device("auto", print)
    for precision, dtype in DTYPES.items():
        for case in CASES:
            found = shares(dict(steps_of(case, dtype, device))["delta_stn cycle"], device)
            longest = sorted(found, key=lambda name: -found[name])[:SHOWN]
            yield {
                "case": case,
                "precision": precision,
                "operators": ", ".join(f"{name} {found[name]:.0%}" for name in longest),
                "others": f"{1 - sum(found[name] for name in longest):.0%}",
            }
