"""The published Delta-STN code beside ours: the same networks and batches, in one process, one after the other."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks import Row
from benchmarks.steps import case_of, operations, steps_of
from cpmlho.core.options import ResponseOptions
from cpmlho.core.problem import Conditions, Problem
from cpmlho.study.harness.hardware import DTYPES

NEEDED = ("base_step_optimizer.py", "hyper/container.py", "examples/mlp/model.py", "examples/simple_cnn/model.py")
REPEATS = 7


class PublishedCodeError(Exception):
    """The folder is no checkout of the published code; the message says what is missing."""


def find(folder: Path) -> Path:
    """The folder, if it holds what is measured.

    Raises:
        PublishedCodeError: it does not.
    """
    for name in NEEDED:
        if not (folder / name).is_file():
            raise PublishedCodeError(
                f"PUBLISHED={folder}: no {name} there; give a checkout of the published Delta-STN code"
            )
    return folder


def model_of(case: str, container: Any, count: int) -> Any:
    """Its own network of the case; its MLP ends in 1200 outputs whatever number it is given."""
    if case.startswith("MLP"):
        return import_module("examples.mlp.model").StnThreeLayerMLP(28 * 28, 10, count, container)
    return import_module("examples.simple_cnn.model").StnSimpleCNN(count, container)


def cycle_of(case: str, problem: Problem, conditions: Conditions, options: ResponseOptions) -> Callable[[], object]:
    """A cycle of the published code, in float32, on batches in memory.

    It is spared what slows it in use: the DataLoader, and cutout example by example. Its optimisers take plain SGD
    here, as ours do, where its scripts have momentum.
    """
    container = import_module("hyper.container").HyperContainer(torch.device("cpu"))
    space = problem.space
    for name, *bounds in zip(space.names, *(x.tolist() for x in (space.start, space.low, space.high)), strict=True):
        container.register(name, bounds[0], options.perturbation_scale, *bounds[1:], name.startswith("cutout"))
    model = model_of(case, container, len(space.names))
    descent = [
        torch.optim.SGD(group, lr=conditions.training.learning_rate)
        for group in (model.get_general_parameters(), model.get_response_parameters())
    ]
    ascent = [torch.optim.RMSprop([x], lr=options.hyper_learning_rate) for x in (container.h_tensor, container.h_scale)]
    loss = torch.nn.CrossEntropyLoss()
    steps = import_module("base_step_optimizer").DeltaStnStepOptimizer(
        model, *descent, *ascent, loss, container, True, options.entropy_weight
    )
    order = conditions.streams(problem)
    train = conditions.batches(problem.train, order.host("train_order"))
    valid = conditions.batches(problem.valid, order.host("valid_order"))

    def cycle() -> None:
        for tune in [False] * options.train_steps + [True] * options.valid_steps:
            inputs, labels = next(valid if tune else train)
            steps.step(inputs, labels, container.get_perturbed_hyper(len(labels)), None, tune)

    return cycle


def side_by_side(acts: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Each act's processor seconds, the median of several, while the acts take turns."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    for turn in range(REPEATS + 1):
        for name, act in acts.items():
            start = time.process_time()
            act()
            if turn:  # the first is to warm up
                times[name].append(time.process_time() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def measure_published(folder: Path) -> Iterator[Row]:
    """A row for each network of the published code, on one thread of the CPU."""
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    sys.path.insert(0, str(find(folder).resolve()))
    for case in ("MLP, 1200 outputs", "CNN, dropout_fc"):
        problem, conditions, methods = case_of(case, torch.float32, cpu)
        options = methods["delta_stn"]
        assert isinstance(options, ResponseOptions)
        acts = {"published": cycle_of(case, problem, conditions, options)}
        for precision, dtype in DTYPES.items():
            acts |= {f"{name}, {precision}": act for name, act in steps_of(case, dtype, cpu) if name != "plain step"}
        count = operations(acts["published"]) / operations(acts["delta_stn cycle, float32"])
        taken = side_by_side(acts)
        yield (
            {"case": case, "operations, published / ours": count}
            | {f"{name}, ms": seconds * 1e3 for name, seconds in taken.items()}
            | {f"published / {p}": taken["published"] / taken[f"delta_stn cycle, {p}"] for p in DTYPES}
        )
