"""The time of runs on this machine, estimated from a few training steps and an evaluation on noise.

`python -m cpmlho.study.harness.pace FILE` reads lines `DATASET METHOD` and prints JSON: the seconds of a run of each,
on one core or GPU. The workflow starts it in a separate process, because it imports torch.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from cpmlho.core.options import Fixed
from cpmlho.study.arrays import Arrays
from cpmlho.study.data import load as load_data
from cpmlho.study.events import FRESH, Snapshot
from cpmlho.study.harness.hardware import DTYPES, choose_device, choose_precision
from cpmlho.study.methods import METHODS
from cpmlho.study.networks import GREY
from cpmlho.study.problem import EVALUATION_BATCH, budget_of, problem_of
from cpmlho.study.protocol import Protocol, load
from cpmlho.study.registry import Shape
from cpmlho.study.spec import RunKey, RunSpec

STEPS = 5  # per epoch; one cycle of the methods that tune
EXAMPLES = (60_000, 10_000)  # of the datasets' training and test files


class Pace(NamedTuple):
    """Seconds of a training step, and of the evaluation of one example."""

    step: float
    example: float


def measure(spec: RunSpec, shape: Shape) -> Pace:
    """Return the pace of a run, from the second of two short epochs and an evaluation.

    Args:
        spec: the settings of a run that is not a search.
        shape: shape of an example.
    """
    device = choose_device(spec.device, lambda line: None)
    dtype = DTYPES[choose_precision(spec.precision, device)]
    clock = time.process_time if device.type == "cpu" else time.perf_counter  # not affected by other processes
    data = spec.data.model_copy(update={"epochs": 2, "evaluate_every": 1})
    spec = spec.model_copy(update={"valid_fraction": 0.5, "data": data})
    noise = np.random.default_rng(0)
    images = noise.integers(0, 256, (2 * STEPS * spec.training.batch_size, *shape), dtype=np.uint8)
    labels = np.zeros(len(images), np.int64)
    test = slice(EVALUATION_BATCH)
    problem = problem_of(spec, Arrays(images, labels, images[test], labels[test]), device)
    budget = budget_of(spec, dtype)
    method = METHODS[spec.algorithm].train(problem, budget, spec.settings, FRESH)
    event, seconds, metrics = next(method), 0.0, None
    while event.epoch < 2:
        if isinstance(event, Snapshot):
            metrics = problem.evaluate(event.predict)
        start = clock()
        event = method.send(metrics)
        seconds = clock() - start
    assert isinstance(event, Snapshot)
    start = clock()
    problem.evaluate(event.predict)
    return Pace(seconds / budget.iterations(problem), (clock() - start) / (len(problem.valid) + len(problem.test)))


def estimate(protocol: Protocol, kinds: Iterable[tuple[str, str]]) -> dict[str, float]:
    """Return the seconds per run of each dataset and method, by `DATASET/METHOD`; equal work is measured once."""
    torch.set_num_threads(1)
    paces: dict[str, Pace] = {}
    seconds = {}
    for dataset, method in kinds:
        spec = protocol.resolve(RunKey(dataset, method, 0))
        trainings = spec.trainings
        if METHODS[spec.algorithm].kind != "schedule":  # a trial trains like `fixed`
            spec = spec.model_copy(update={"algorithm": "fixed", "settings": Fixed()})
        shape: Shape = GREY
        examples, tested = EXAMPLES
        if spec.data.reader:
            arrays = load_data(spec.data, spec.data_dir)
            examples, tested, shape = len(arrays.train_labels), len(arrays.test_labels), arrays.shape
        alike = f"{spec.data.network} {shape} {spec.settings} {spec.precision}"
        if alike not in paces:
            paces[alike] = measure(spec, shape)
        examples = spec.data.examples or examples
        valid = examples * spec.valid_fraction
        steps = (examples - valid) // spec.training.batch_size
        evaluation = (valid + tested) * paces[alike].example / spec.data.evaluate_every
        epoch = steps * paces[alike].step + evaluation
        seconds[f"{dataset}/{method}"] = trainings * spec.data.epochs * epoch
    return seconds


if __name__ == "__main__":
    wanted = [(dataset, method) for dataset, method in (line.split() for line in sys.stdin)]
    print(json.dumps(estimate(load([Path(sys.argv[1])]), wanted)))
