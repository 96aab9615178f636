"""The harness: it trains one run, evaluates it, keeps its checkpoint, and writes its files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch

from cpmlho.study.data import load
from cpmlho.study.events import Past, Tick
from cpmlho.study.files import locked
from cpmlho.study.harness.checkpoint import Checkpoint
from cpmlho.study.harness.hardware import DTYPES, choose_device, choose_precision, device_name, peak_memory
from cpmlho.study.harness.provenance import environment, git_commit, plugin_sha256, utc, versions
from cpmlho.study.harness.record import Record
from cpmlho.study.methods import METHODS
from cpmlho.study.numerics import NUMERICS
from cpmlho.study.problem import Budget, Problem, budget_of, problem_of
from cpmlho.study.results import Observer, RunResult, write_run
from cpmlho.study.spec import PLACE, RunSpec


def execute(
    spec: RunSpec,
    folder: Path,
    observers: Sequence[Observer],
    say: Callable[[str], None],
    started: float,
    workers: int = 1,
) -> RunResult:
    """Run one specification, from its checkpoint if it was interrupted, and write its files under `folder`.

    Args:
        spec: what to run.
        folder: where result.json, the tables and the checkpoint go.
        observers: called at the start, after each epoch and at the end.
        say: prints a line.
        started: `time.monotonic()` at the start of the process; not the time of day, which may be set back meanwhile.
        workers: how many independent trainings may run in parallel; on a CPU the results do not depend on it.

    Raises:
        ConfigError: the device is not available.
        DataError: the data are missing, damaged, or too few.
        OSError: a file cannot be written; earlier files are unchanged.
    """
    torch.set_num_threads(1)  # the number of threads changes the last bits
    device = choose_device(spec.device, say)
    precision = choose_precision(spec.precision, device)
    problem = problem_of(spec, load(spec.data, spec.data_dir), device)
    budget = budget_of(spec, DTYPES[precision], workers)
    checkpoint = Checkpoint(folder, identity(spec, device, precision), say)
    with locked(folder, lambda: say(f"{folder}: locked by another process; waiting")):
        record = train(spec, problem, budget, checkpoint, observers)
        result = result_of(spec, record, device, precision, started)
        write_run(folder, result, record.tables)
        checkpoint.remove()
    for observer in observers:
        observer.finished(result, folder)
    return result


def train(
    spec: RunSpec,
    problem: Problem,
    budget: Budget,
    checkpoint: Checkpoint,
    observers: Sequence[Observer],
) -> Record:
    """Train to the end, or until a gradient method diverges, from the checkpoint if there is one; return the record.

    Evaluations do not count as training time.
    """
    method = METHODS[spec.algorithm]
    record, past = Record(search=method.kind == "search"), Past()
    if saved := checkpoint.read(problem.device):
        record, state = saved
        past = Past([each.metrics for each in record.evaluations], state, record.evaluations[-1].epoch)
    for observer in observers:
        observer.started(spec, record.tables)
    events, metrics = method.train(problem, budget, spec.settings, past), None
    while not record.over:
        try:
            event = record.clock.advance(events, metrics, problem.device)
        except StopIteration:
            break
        metrics = None
        if isinstance(event, Tick):
            for observer in observers:
                observer.ticked(event.epoch)
            continue
        with record.clock.evaluating():
            metrics = problem.evaluate(event.predict)
        new = record.add(event, metrics)
        if event.epoch == budget.epochs and not record.search:
            with record.clock.evaluating():
                record.train_loss = problem.final_train_loss(event.predict)
        checkpoint.write(record, event.state())
        for observer in observers:
            observer.evaluated(new, event.weights if record.final is record.evaluations[-1] else None)
    return record


def identity(spec: RunSpec, device: torch.device, precision: str) -> dict[str, object]:
    """Return everything that must be unchanged for a resumed run to be bit-identical."""
    return {
        "settings": spec.model_dump(mode="json", exclude=PLACE),
        "numerics": NUMERICS,
        "plug-in files": plugin_sha256(spec.data, spec.algorithm),
        "versions": versions(),
        "device or precision": [device_name(device), precision],
    }


def result_of(
    spec: RunSpec,
    record: Record,
    device: torch.device,
    precision: Literal["float32", "bfloat16"],
    started: float,
) -> RunResult:
    """Return the content of result.json."""
    final, clock = record.final, record.clock
    seconds, ended = time.monotonic() - started, time.time()
    return RunResult(
        spec=spec,
        status="diverged" if record.diverged else "done",
        diverged_by=record.diverged_by,
        final=final.metrics,
        best=record.best.metrics,
        train_loss=record.train_loss,
        hyperparameters=final.hyperparameters,
        g_ratio=record.g_ratio,
        steps=record.evaluations[-1].step,
        train_seconds=clock.seconds,
        train_cpu_seconds=clock.cpu_seconds,
        evaluation_seconds=clock.evaluation_seconds,
        total_seconds=seconds,
        peak_memory_mb=peak_memory(device) / 2**20,
        device=device_name(device),
        precision=precision,
        versions=versions(),
        git_commit=git_commit(),
        numerics=NUMERICS,
        plugins=plugin_sha256(spec.data, spec.algorithm),
        data_sha256=spec.data.sha256,
        started=utc(ended - seconds),
        ended=utc(ended),
        environment=environment(device),
        tables=sorted(record.tables),
    )
