"""`make gpu-check`: whether a GPU does what the CPU does, repeats itself, and what it gains; or that there is none.

The networks are the paper's, the data those of the tests: each training is one epoch of 13 batches, in which every kind
of step is taken. Where two devices are compared, all draws come from the CPU; otherwise each has streams of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from benchmarks import Row
from benchmarks.__main__ import show
from benchmarks.steps import cycles_of, seconds
from cpmlho.core.events import FRESH, Snapshot
from cpmlho.core.problem import Problem, Split
from cpmlho.core.streams import Streams
from cpmlho.study.compare import numbers
from cpmlho.study.data import fetch, load
from cpmlho.study.harness.checkpoint import CHECKPOINT
from cpmlho.study.harness.hardware import choose_device, device_name
from cpmlho.study.methods import METHODS
from cpmlho.study.problem import conditions_of, problem_of
from cpmlho.study.protocol import Protocol, RunKey, RunSpec
from cpmlho.study.protocol import load as load_protocol
from cpmlho.study.results import run_dir

DATASETS = ("mnist", "fashionmnist")
METHOD_NAMES = ("random_search", "bayesian_optimization", "fixed", "stn", "delta_stn", "cpmlho")
CPU = torch.device("cpu")
# Of the largest output, after an epoch: rounding that training has carried on.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}
PATIENCE = 300  # seconds, for one run


class _DrawOnHost(TorchFunctionMode):
    """Draws on the CPU what a generator of the CPU's is to fill another device with."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        generator, device = kwargs.get("generator"), torch.device(kwargs.get("device") or "cpu")
        if generator is None or generator.device != CPU:
            return func(*args, **kwargs)
        if args and isinstance(args[0], Tensor) and args[0].device != CPU:
            return args[0].copy_(func(torch.empty_like(args[0], device=CPU), *args[1:], **kwargs))
        return func(*args, **{**kwargs, "device": CPU}).to(device) if device != CPU else func(*args, **kwargs)


@contextmanager
def same_draws() -> Iterator[None]:
    """All streams of randomness are the CPU's, whatever the device."""
    with patch.object(Streams, "device", Streams.host), _DrawOnHost():
        yield


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """What is made without a dtype is of this one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def protocol(folder: Path) -> Protocol:
    """The smoke protocol with the paper's networks and one epoch; its data in place."""
    networks = load_protocol([Path("config.yaml")]).datasets
    datasets = {name: {"epochs": 1, "network": networks[name].network.model_dump()} for name in DATASETS}
    overrides = {"data": {"dir": str(folder / "data")}, "datasets": datasets}
    small = load_protocol([Path("config.yaml"), Path("tests/smoke.yaml")], overrides)
    for name in DATASETS:
        fetch(small.datasets[name], small.data, lambda line: None)
    return small


def problem_in(dtype: torch.dtype, spec: RunSpec, device: torch.device) -> Problem:
    """The problem of a run; in float64 from the parameters to the losses."""
    problem = problem_of(spec, load(spec.data, spec.data_dir), device)
    if dtype != torch.float64:
        return problem
    space = {name: getattr(problem.space, name).double() for name in ("low", "high", "start")}
    parts = {name: getattr(problem, name) for name in ("train", "valid", "test")}

    def double(part: Split) -> Split:
        return dataclasses.replace(part, prepare=lambda images: part.prepare(images).double())

    return dataclasses.replace(
        problem,
        space=dataclasses.replace(problem.space, **space),
        **{name: double(part) for name, part in parts.items()},
        loss=F.cross_entropy,
        train_loss=lambda outputs, labels, values: F.cross_entropy(outputs, labels),
    )


def train(spec: RunSpec, device: torch.device, dtype: torch.dtype, *, graphs: bool = False) -> tuple[Tensor, float]:
    """Outputs on the validation split after an epoch, of the last trial for a search; and milliseconds an iteration."""
    with precision(dtype):
        problem, conditions = problem_in(dtype, spec, device), conditions_of(spec, dtype, graphs=graphs)
        method = METHODS[spec.algorithm].train(problem, conditions, spec.settings, FRESH)
        start, last, metrics = time.perf_counter(), None, None
        with suppress(StopIteration):
            while True:
                event = method.send(metrics)
                metrics = problem.evaluate(event.predict) if isinstance(event, Snapshot) else None
                last = event if isinstance(event, Snapshot) else last
        seconds = time.perf_counter() - start
        assert last is not None
        with torch.no_grad():
            return last.predict(problem.valid.prepare(problem.valid.images)).cpu(), 1000 * seconds / last.step


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two tensors, of the largest entry."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def methods(small: Protocol, device: torch.device) -> Iterator[Row]:
    """Each method on each dataset: the device against the CPU, against itself, and the time that both take."""
    for dataset, method in itertools.product(DATASETS, METHOD_NAMES):
        spec = small.resolve(RunKey(dataset, method, 0))
        row: Row = {"dataset": dataset, "method": method}
        for dtype, tolerance in TOLERANCES.items():
            with same_draws():
                off = difference(train(spec, device, dtype)[0], train(spec, CPU, dtype)[0])
            row[f"{str(dtype).removeprefix('torch.')} (at most {tolerance:g})"] = off
            row["as the CPU"] = row.get("as the CPU", True) and off <= tolerance
        (first, _), (again, milliseconds) = train(spec, device, torch.float32), train(spec, device, torch.float32)
        row["same bits again"] = torch.equal(first, again)
        row["as CUDA graphs"] = torch.equal(first, train(spec, device, torch.float32, graphs=True)[0])
        yield {**row, "ms a step": milliseconds, "on the CPU": train(spec, CPU, torch.float32)[1]}


def cycles(small: Protocol, device: torch.device) -> Iterator[Row]:
    """The time of a cycle whose kernels are launched one by one, and of one that is replayed as CUDA graphs."""
    for dataset in DATASETS:
        spec = small.resolve(RunKey(dataset, "cpmlho", 0))
        problem = problem_of(spec, load(spec.data, spec.data_dir), device)
        both = (conditions_of(spec, torch.float32, graphs=graphs) for graphs in (False, True))
        for launched, replayed in zip(*(cycles_of(problem, each, small.methods) for each in both), strict=True):
            (name, one_by_one), (_, as_graphs) = launched, replayed
            times = [1000 * seconds(act, device) for act in (one_by_one, as_graphs)]
            yield {"dataset": dataset, "cycle": name, "ms": times[0], "as CUDA graphs": times[1]}


def started(folder: Path, config: Path, seed: int) -> subprocess.Popen[bytes]:
    """A run of CPMLHO as a process of its own."""
    key = ["mnist", "cpmlho", str(seed)]
    command = [sys.executable, "-m", "cpmlho", "run", *key, "--config", str(config), f"--results-dir={folder}"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}.db"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def finished(folder: Path, seed: int) -> str:
    """The numbers of a run of `started`."""
    return numbers(run_dir(folder, RunKey("mnist", "cpmlho", seed)))


def kill_and_go_on(folder: Path, config: Path) -> bool:
    """Kill a run at its first checkpoint and begin it again; whether it was hit."""
    checkpoint = run_dir(folder, RunKey("mnist", "cpmlho", 0)) / CHECKPOINT
    run = started(folder, config, 0)
    while run.poll() is None and not checkpoint.exists():
        time.sleep(0.005)
    run.kill()
    hit = run.wait() < 0 and checkpoint.exists()
    started(folder, config, 0).wait(PATIENCE)
    return hit


def processes(small: Protocol, folder: Path) -> Iterator[Row]:
    """Whole runs: one killed at its first checkpoint and begun again, and two that share the card."""
    config = folder / "protocol.json"
    content = small.model_dump(mode="json")
    content["datasets"]["mnist"]["epochs"] = 4  # long enough to be killed in
    config.write_text(json.dumps(content))
    alone = folder / "alone"
    for seed in (0, 1):
        started(alone, config, seed).wait(PATIENCE)

    as_graphs = folder / "graphs.json"
    as_graphs.write_text(json.dumps(content | {"cuda_graphs": True}))
    for name, file in (("", config), (", as CUDA graphs", as_graphs)):
        killed = folder / f"killed_{file.stem}"
        passed = kill_and_go_on(killed, file) and finished(killed, 0) == finished(alone, 0)
        yield {"check": f"killed at a checkpoint, gone on{name}", "passed": passed}

    shared = folder / "shared"
    for run in [started(shared, config, seed) for seed in (0, 1)]:
        run.wait(PATIENCE)
    same = all(finished(shared, seed) == finished(alone, seed) for seed in (0, 1))
    yield {"check": "two runs at once", "passed": same}


def check(device: torch.device, folder: Path) -> bool:
    """Print the tables; whether everything passed."""
    small = protocol(folder).model_copy(update={"device": device.type})
    rows = show(f"One epoch of each method on {device_name(device)}", methods(small, device))
    rows += show("A cycle, in float32", cycles(small, device))
    rows += show("Whole runs of CPMLHO", processes(small, folder))
    return all(value for row in rows for value in row.values() if isinstance(value, bool))


def main() -> None:
    """Check the GPU; exit status 1 where something is not as it should be."""
    device = choose_device("auto", print)
    if device == CPU:
        print("No GPU that torch can use here: what follows shows only that no step waits for one or leaves it.")
        fake = [sys.executable, "-m", "pytest", "tests/core/test_fake_accelerator.py"]
        sys.exit(subprocess.run(fake, check=False).returncode)
    with TemporaryDirectory() as folder:
        passed = check(device, Path(folder))
    print("\nAll as it should be." if passed else "\nNot all is as it should be: see what says False above.")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
