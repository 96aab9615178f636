"""Accuracy of the hypergradient along a run, by finite differences.

    python -m benchmarks.hypergradient mnist cpmlho 10 --config config.yaml --config workflow/small_data.yaml
    python -m benchmarks.hypergradient --config config.yaml --config workflow/small_data.yaml

At some points of the run, each hyperparameter is moved up and down by `SHIFT` on the scale of lambda, and the weights
train on from there with these values, the same batches and the same noise. The difference of the validation losses
is compared with the gradient that the response gives at the point. Repeats draw other batches and other noise. The
second command summarises the measurements that are there.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cpmlho.core.options import ResponseOptions
from cpmlho.study.data import load as load_data
from cpmlho.study.events import Snapshot
from cpmlho.study.harness.hardware import DTYPES, choose_precision
from cpmlho.study.methods import METHODS
from cpmlho.study.methods.response import tuner_of
from cpmlho.study.problem import Budget, Problem, budget_of, problem_of
from cpmlho.study.protocol import load
from cpmlho.study.spec import RunKey, RunSpec

EPOCHS = (10, 20, 40, 80)  # after which it is measured
STEPS = 300  # of the trainings from a point
SHIFT = 0.5  # of lambda
REPEATS = 2
CPU = torch.device("cpu")


def main() -> None:
    """Train as the study does, and measure after some epochs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hypergradient", description=main.__doc__)
    parser.add_argument("dataset", nargs="?")
    parser.add_argument("method", nargs="?", help="a method or variant with a centred response")
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--config", type=Path, action="append", required=True, metavar="FILE")
    given = parser.parse_args()
    protocol = load(given.config)
    folder = Path(protocol.results_dir, "hypergradient")
    if given.seed is None:
        text = summary(folder)
        (folder / "summary.md").write_text(text, encoding="utf-8")
        print(text)
        return
    spec = protocol.resolve(RunKey(given.dataset, given.method, given.seed))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{given.dataset}-{given.method}-{given.seed}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["epoch", "step", "repeat", "hyperparameter", "value", "predicted", "measured"])
        writer.writeheader()
        for row in measured(spec):
            writer.writerow(row)
            file.flush()


def measured(spec: RunSpec) -> Iterator[dict[str, Any]]:
    """Yield a row for each point, repeat and hyperparameter."""
    torch.set_num_threads(1)
    problem = problem_of(spec, load_data(spec.data, spec.data_dir), CPU)
    budget = budget_of(spec, DTYPES[choose_precision(spec.precision, CPU)])
    for event in METHODS[spec.algorithm].train(problem, budget, spec.settings):
        if isinstance(event, Snapshot) and event.epoch in EPOCHS:
            for repeat in range(REPEATS):
                state = event.state()["tuner"]
                yield from _point(problem, budget, spec.settings, state, event, repeat)
        if event.epoch == max(EPOCHS):
            return


def _point(
    problem: Problem, budget: Budget, options: ResponseOptions, state: dict[str, Any], event: Snapshot, repeat: int
) -> Iterator[dict[str, Any]]:
    tuner = tuner_of(problem, budget, options, budget.streams(problem))
    tuner.load_state_dict(state)
    for number, generator in enumerate(tuner.bilevel.noise.values()):
        generator.manual_seed(100 * repeat + number)
    order = torch.Generator().manual_seed(repeat)
    train, valid = islice(budget.batches(problem.train, order), STEPS), problem.valid
    found = tuner.response_quality(train, [(valid.prepare(valid.images), valid.labels)], steps=STEPS, shift=SHIFT)
    for name, value in tuner.values.items():
        yield {
            **{"epoch": event.epoch, "step": event.step, "repeat": repeat, "hyperparameter": name, "value": value},
            **{"predicted": found.predicted[name], "measured": found.measured[name]},
        }


def summary(folder: Path) -> str:
    """For each dataset, method and point: how the predicted gradient agrees with the measured one, over seeds.

    Cosine and size are of the gradient by all hyperparameters, its measured value the mean over repeats; signs counts
    single hyperparameters. Noise is half the difference between two repeats, in units of the measured size.
    """
    rows = []
    for path in sorted(folder.glob("*.csv")):
        dataset, method, seed = path.stem.split("-")
        for step, own in pd.read_csv(path).groupby("step"):
            each = own.pivot(index="hyperparameter", columns="repeat", values="measured")
            found, predicted = each.mean(axis=1), own.groupby("hyperparameter")["predicted"].first()
            size, length = float(np.linalg.norm(found)), float(np.linalg.norm(predicted))
            rows.append(
                {
                    **{"dataset": dataset, "method": method, "iteration": step, "seed": seed},
                    "cosine": float(found @ predicted) / (size * length),
                    "signs": float((found * predicted > 0).mean()),
                    "size": length / size,
                    "noise": float(np.linalg.norm(each[0] - each[1])) / 2 / size,
                }
            )
    grouped = pd.DataFrame(rows).groupby(["dataset", "method", "iteration"], sort=False)
    means = grouped[["cosine", "signs", "size", "noise"]].mean().assign(seeds=grouped.size()).reset_index()
    lines = [list(means.columns), ["---"] * len(means.columns)]
    lines += [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row] for row in means.to_numpy()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
