"""The harness: it owns the clock, evaluates, recognises divergence, and writes the run's files."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from cpmlho.config import RunSpec
from cpmlho.data import load
from cpmlho.provenance import git_commit, versions
from cpmlho.results import HISTORY, TRIALS, Metrics, Observer, Row, RunResult, write_run
from cpmlho.tuning.hardware import DTYPES, choose_device, choose_precision, device_name, peak_memory
from cpmlho.tuning.method import Method, Snapshot, Tick
from cpmlho.tuning.methods import METHODS
from cpmlho.tuning.problem import Problem


@dataclass
class Clock:
    """Wall and CPU time of the training alone, and the wall time of the evaluations between."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    evaluation_seconds: float = 0.0

    def advance(self, method: Method, metrics: Metrics | None, device: torch.device) -> Snapshot | Tick:
        """Run the method to its next yield, and time it.

        Raises:
            StopIteration: the method has ended.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            event = method.send(metrics)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return event
        finally:
            self.seconds += time.perf_counter() - wall
            self.cpu_seconds += time.process_time() - cpu

    def evaluate(self, problem: Problem, snapshot: Snapshot) -> Metrics:
        """Evaluate, and time it."""
        wall = time.perf_counter()
        metrics = problem.evaluate(snapshot.predict)
        self.evaluation_seconds += time.perf_counter() - wall
        return metrics


@dataclass
class Record:
    """What a run has shown so far."""

    search: bool
    tables: defaultdict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    evaluations: list[tuple[Snapshot, Metrics]] = field(default_factory=list)
    seconds: float = 0.0  # of training, up to the last evaluation

    def add(self, snapshot: Snapshot, metrics: Metrics, seconds: float) -> dict[str, Sequence[Row]]:
        """Take in one evaluation; the new rows by file name."""
        history = {"epoch": snapshot.epoch, "step": snapshot.step, "seconds": seconds, **metrics.model_dump()}
        new: dict[str, Sequence[Row]] = {HISTORY: [history], **snapshot.tables}
        if self.search:
            new[TRIALS] = [self._trial(snapshot, metrics, seconds - self.seconds)]
        for name, rows in new.items():
            self.tables[name].extend(rows)
        self.evaluations.append((snapshot, metrics))
        self.seconds = seconds
        return new

    def _trial(self, snapshot: Snapshot, metrics: Metrics, seconds: float) -> Row:
        return {
            "trial": len(self.evaluations),
            **snapshot.hyperparameters,
            **metrics.model_dump(),
            "seconds": seconds,
            "status": "done" if finite(metrics) else "diverged",
        }

    @property
    def best(self) -> tuple[Snapshot, Metrics]:
        """The evaluation with the best validation loss."""
        return min(self.evaluations, key=lambda e: e[1].val_loss if finite(e[1]) else math.inf)

    @property
    def final(self) -> tuple[Snapshot, Metrics]:
        """What the run is judged by: a search's best trial (R11), otherwise the last step (R10)."""
        return self.best if self.search else self.evaluations[-1]


def finite(metrics: Metrics) -> bool:
    """Whether the losses are numbers that training can go on from."""
    return math.isfinite(metrics.val_loss) and math.isfinite(metrics.test_loss)


def execute(spec: RunSpec, folder: Path, observers: Sequence[Observer], started: float) -> RunResult:
    """Run one specification and write its files under `folder`.

    Args:
        spec: what to run.
        folder: where result.json and the tables go.
        observers: told of the start, each evaluation and the end.
        started: `time.time()` at the start of the process.

    Raises:
        ConfigError: the device is not there.
        DataError: the data are missing, damaged, or too few.
    """
    torch.set_num_threads(1)  # the number of threads changes the last bits
    device = choose_device(spec.device)
    precision = choose_precision(spec.precision, device)
    problem = Problem.of(spec, load(spec.data, spec.data_dir), device, DTYPES[precision])
    for observer in observers:
        observer.started(spec)
    record, clock = Record(search="trials" in type(spec.settings).model_fields), Clock()
    drive(METHODS[spec.settings.algorithm](problem, spec.settings), problem, record, clock, observers)
    result = summarise(spec, record, clock, device, precision, started)
    write_run(folder, result, record.tables)
    for observer in observers:
        observer.finished(result, folder)
    return result


def drive(method: Method, problem: Problem, record: Record, clock: Clock, observers: Sequence[Observer]) -> None:
    """Run a method to its end, or until a gradient method diverges; evaluation is outside the clock."""
    metrics: Metrics | None = None
    while True:
        try:
            event = clock.advance(method, metrics, problem.device)
        except StopIteration:
            return
        metrics = None
        if isinstance(event, Tick):
            for observer in observers:
                observer.ticked(event.epoch)
            continue
        metrics = clock.evaluate(problem, event)
        new = record.add(event, metrics, clock.seconds)
        for observer in observers:
            observer.evaluated(new)
        if not record.search and not finite(metrics):
            return


def summarise(
    spec: RunSpec,
    record: Record,
    clock: Clock,
    device: torch.device,
    precision: Literal["float32", "bfloat16"],
    started: float,
) -> RunResult:
    """The content of result.json."""
    snapshot, final = record.final
    _, best = record.best
    return RunResult(
        spec=spec,
        status="done" if finite(final) else "diverged",
        final=final,
        best=best,
        hyperparameters=snapshot.hyperparameters,
        steps=record.evaluations[-1][0].step,
        train_seconds=clock.seconds,
        train_cpu_seconds=clock.cpu_seconds,
        evaluation_seconds=clock.evaluation_seconds,
        total_seconds=time.time() - started,
        peak_memory_mb=peak_memory(device) / 2**20,
        device=device_name(device),
        precision=precision,
        versions=versions(),
        git_commit=git_commit(),
        data_sha256=spec.data.sha256,
    )
