"""Times of the published Delta-STN code and of ours, on the same networks and batches, in one process in turns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks import Row, in_turns
from benchmarks.steps import cycle, operations, problem
from cpmlho.study.harness.hardware import DTYPES

NEEDED = ("base_step_optimizer.py", "hyper/container.py", "examples/mlp/model.py", "examples/simple_cnn/model.py")


class PublishedCodeError(Exception):
    """The folder is not a checkout of the published code; the message names a missing file."""


def find(folder: Path) -> Path:
    """Return the folder if it is a checkout of the published code.

    Raises:
        PublishedCodeError: a needed file is missing.
    """
    for name in NEEDED:
        if not (folder / name).is_file():
            raise PublishedCodeError(
                f"PUBLISHED={folder}: {name} is missing; name a checkout of the published Delta-STN code"
            )
    return folder


def published_cycle(case: str) -> Callable[[], object]:
    """Return a function that runs a cycle of the published code in float32, on batches in memory.

    Its DataLoader and its cutout, which works on one example at a time, are excluded. Its optimizers use plain SGD
    here, like ours; its scripts use momentum.
    """
    where, budget, methods = problem(case, torch.float32)
    options, space = methods["delta_stn"], where.space
    container = import_module("hyper.container").HyperContainer(torch.device("cpu"))
    for name, each in space.items():
        bounds = (each.first, options.perturbation_scale, each.low, each.high)
        container.register(name, *bounds, name.startswith("cutout"))
    model: Any
    if case.startswith("MLP"):  # it has 1200 outputs, whatever number it is given
        model = import_module("examples.mlp.model").StnThreeLayerMLP(28 * 28, 10, len(space), container)
    else:
        model = import_module("examples.simple_cnn.model").StnSimpleCNN(len(space), container)
    groups = (model.get_general_parameters(), model.get_response_parameters())
    descent = [torch.optim.SGD(group, lr=budget.training.learning_rate) for group in groups]
    ascent = [torch.optim.RMSprop([x], lr=options.hyper_learning_rate) for x in (container.h_tensor, container.h_scale)]
    steps = import_module("base_step_optimizer").DeltaStnStepOptimizer(
        *(model, *descent, *ascent, torch.nn.CrossEntropyLoss(), container, True, options.entropy_weight)
    )
    order = budget.streams(where)
    train = budget.batches(where.train, order.host("train_order"))
    valid = budget.batches(where.valid, order.host("valid_order"))

    def act() -> None:
        for tune in [False] * options.train_steps + [True] * options.valid_steps:
            inputs, labels = next(valid if tune else train)
            steps.step(inputs, labels, container.get_perturbed_hyper(len(labels)), None, tune)

    return act


def measure_published(folder: Path) -> Iterator[Row]:
    """Yield a row for each network of the published code, on one thread."""
    torch.set_num_threads(1)
    sys.path.insert(0, str(find(folder).resolve()))
    for case in ("MLP, 1200 outputs", "CNN, dropout_fc"):
        acts = {"published": published_cycle(case)}
        for precision, dtype in DTYPES.items():
            acts |= {f"{name}, {precision}": cycle(case, name, dtype) for name in ("delta_stn", "cpmlho")}
        taken = in_turns(acts)
        yield (
            {
                "network": case,
                "operations, published / ours": operations(acts["published"]) / operations(acts["delta_stn, float32"]),
            }
            | {f"{name}, ms": ms for name, ms in taken.items()}
            | {f"published / {p}": taken["published"] / taken[f"delta_stn, {p}"] for p in DTYPES}
            | {f"CPMLHO / Δ-STN, {p}": taken[f"cpmlho, {p}"] / taken[f"delta_stn, {p}"] for p in DTYPES}
        )
