"""Processor time of plain training steps, and of cycles: five training iterations and one hyperparameter update."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import Row, in_turns
from cpmlho.core.options import ResponseOptions
from cpmlho.study.data import load as load_data
from cpmlho.study.harness.hardware import DTYPES
from cpmlho.study.methods.response import tuner_of
from cpmlho.study.problem import Budget, Problem, budget_of, problem_of
from cpmlho.study.protocol import load
from cpmlho.study.spec import RunKey
from cpmlho.study.trials import FixedTraining

# The paper's networks, and those of the published Delta-STN code.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "MLP": ("mnist", {}),
    "CNN": ("fashionmnist", {}),
    "MLP, 1200 outputs": ("mnist", {"network": {"output_units": 1200}}),
    "CNN, dropout_fc": ("fashionmnist", {"hyperparameters": {"dropout_fc": {"low": 0.0, "high": 0.95, "start": 0.05}}}),
}
CPU = torch.device("cpu")


def problem(case: str, dtype: torch.dtype) -> tuple[Problem, Budget, dict[str, ResponseOptions]]:
    """Return the problem of a case, its budget, and the options of the response methods."""
    dataset, changes = CASES[case]
    protocol = load([Path("config.yaml")], {"datasets": {dataset: changes}})
    spec = protocol.resolve(RunKey(dataset, "delta_stn", 0))
    options = {name: each for name, each in protocol.methods.items() if isinstance(each, ResponseOptions)}
    return problem_of(spec, load_data(spec.data, spec.data_dir), CPU), budget_of(spec, dtype), options


def cycle(case: str, method: str, dtype: torch.dtype) -> Callable[[], None]:
    """Return a function that runs a cycle of one method: `train_steps` iterations and a hyperparameter update."""
    where, budget, methods = problem(case, dtype)
    streams, options = budget.streams(where), methods[method]
    tuner = tuner_of(where, budget, options, streams)
    batches = budget.batches(where.train, streams.host("train_order"))

    def act() -> None:
        for batch in itertools.islice(batches, options.train_steps):
            tuner.step(batch)

    return act


def plain(case: str, dtype: torch.dtype) -> Callable[[], object]:
    """Return a function that runs a training step at the start values."""
    where, budget, _ = problem(case, dtype)
    return FixedTraining(where, budget, torch.tensor([each.first for each in where.space.values()])).step


def operations(act: Callable[[], object]) -> int:
    """Return the number of operations of an act's matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        act()
    return int(counter.get_total_flops())


def peak(dtype: torch.dtype) -> float:
    """Return the operations per millisecond that the machine reaches in a product of two square matrices."""
    a, b = (torch.randn(1024, 1024).to(dtype) for _ in range(2))
    return 2 * 1024**3 / in_turns({"product": lambda: a @ b}, 20)["product"]


def measure() -> Iterator[Row]:
    """Yield a row for each network and precision, on one thread."""
    torch.set_num_threads(1)
    for case, (precision, dtype) in itertools.product(CASES, DTYPES.items()):
        acts: dict[str, Callable[[], object]] = {"plain step": plain(case, dtype)}
        acts |= {f"{method} cycle": cycle(case, method, dtype) for method in ("delta_stn", "stn", "cpmlho")}
        taken = in_turns(acts)
        yield {
            "network": case,
            "precision": precision,
            **{f"{name}, ms": ms for name, ms in taken.items()},
            "CPMLHO / Δ-STN": taken["cpmlho cycle"] / taken["delta_stn cycle"],
            "Δ-STN's share of peak": operations(acts["delta_stn cycle"]) / taken["delta_stn cycle"] / peak(dtype),
        }
