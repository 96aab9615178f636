"""Times of the training steps beside the machine's own matrix product, measured in the same process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import Row
from cpmlho.core.alternating import Alternation
from cpmlho.core.options import CPMLHO, Options, ResponseOptions
from cpmlho.core.planes import CuttingPlanes
from cpmlho.core.precision import operand
from cpmlho.core.problem import Conditions, Problem
from cpmlho.core.steps import Trainable, general_gradients
from cpmlho.study.data import load as load_data
from cpmlho.study.grids import merge
from cpmlho.study.harness.hardware import DTYPES, choose_device
from cpmlho.study.problem import conditions_of, problem_of
from cpmlho.study.protocol import RunKey, RunSpec, load

# The paper's networks, and the networks of the published Delta-STN code.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "MLP": ("mnist", {}),
    "CNN": ("fashionmnist", {}),
    "MLP, 1200 outputs": ("mnist", {"network": {"output_units": 1200}}),
    "CNN, dropout_fc": ("fashionmnist", {"hyperparameters": {"dropout_fc": {"low": 0.0, "high": 0.95, "start": 0.05}}}),
}
REPEATS = 5


def seconds(act: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> float:
    """The shortest of several times, after one to warm up: what disturbs a measurement only ever adds to it."""
    act()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        act()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def peak(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of the machine's own product of two square matrices."""
    size = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / seconds(lambda: a @ b, device, 20)


def operations(act: Callable[[], object]) -> int:
    """Operations of the matrix products and convolutions in a step."""
    with FlopCounterMode(display=False) as counter:
        act()
    return int(counter.get_total_flops())


def case_of(case: str, dtype: torch.dtype, device: torch.device) -> tuple[Problem, Conditions, dict[str, Options]]:
    """The problem of a case, its conditions, and the options of all methods."""
    dataset, changes = CASES[case]
    protocol = load([Path("config.yaml")])
    spec = protocol.resolve(RunKey(dataset, "delta_stn", 0))
    spec = RunSpec.model_validate(merge(spec.model_dump(), {"data": changes}))
    problem = problem_of(spec, load_data(spec.data, spec.data_dir), device)
    return problem, conditions_of(spec, dtype), protocol.methods


def steps_of(case: str, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is timed: a plain training step, and each method's cycle of iterations and one hyperparameter update."""
    problem, conditions, methods = case_of(case, dtype, device)
    streams = conditions.streams(problem)
    general = Trainable(problem.initialise(streams.host("init"))[0], dtype)
    batches = conditions.batches(problem.train, streams.host("train_order"))
    noise = streams.device("general_noise")

    def step() -> None:
        gradients = general_gradients(problem, general, next(batches), problem.space.start, noise)
        general.descend(conditions.training.learning_rate, gradients)

    yield "plain step", step
    yield from cycles_of(problem, conditions, methods)


def cycles_of(
    problem: Problem, conditions: Conditions, methods: Mapping[str, Options]
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each method's cycle of iterations and one hyperparameter update, CPMLHO's with as many planes as it keeps."""
    baseline, options = methods["delta_stn"], methods["cpmlho"]
    assert isinstance(baseline, ResponseOptions)
    assert isinstance(options, CPMLHO)
    planes = CuttingPlanes(options, len(problem.network.layers), problem.device)
    for name, run in (
        ("delta_stn cycle", Alternation(problem, conditions, baseline)),
        ("cpmlho cycle", Alternation(problem, conditions, options, theta=options.theta, planes=planes)),
    ):
        for _ in range(options.max_planes if run.planes is not None else 0):
            run.iterate()
            run.cut()

        def cycle(run: Alternation = run) -> None:
            for _ in range(run.options.train_steps):
                run.iterate()
            run.update(tune=True)

        yield name, cycle


def measure(threads: int) -> Iterator[Row]:
    """A row for each case, precision and step, on so many threads."""
    torch.set_num_threads(threads)
    device = choose_device("auto", print)
    kernels = {precision: operand(torch.empty(0, device=device), dtype).dtype for precision, dtype in DTYPES.items()}
    limits = {precision: peak(dtype, device) for precision, dtype in kernels.items()}
    for precision, dtype in DTYPES.items():
        limit = limits[precision]
        for case in CASES:
            for name, act in steps_of(case, dtype, device):
                count, taken = operations(act), seconds(act, device)
                yield {
                    "case": case,
                    "step": name,
                    "precision": precision,
                    "threads": threads,
                    "ms": taken * 1e3,
                    "gflop": count / 1e9,
                    "peak_gflops": limit / 1e9,
                    "of_peak": count / taken / limit,
                }
