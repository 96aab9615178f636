"""The record of a run so far: its rows, its evaluations and its times."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import torch
from pydantic import BaseModel, ConfigDict

from cpmlho.core.planes import PlaneState
from cpmlho.study.events import Method, Metrics, Snapshot, Tick
from cpmlho.study.results import HISTORY, HYPERPARAMETERS, PLANES, TRIALS, Row

RUNAWAY = 1.5  # times the first |w_e - w_h|
EXACT = ConfigDict(ser_json_inf_nan="constants")  # JSON keeps the NaN and infinity of diverged runs


class Clock(BaseModel):
    """Wall and CPU time of the training, and wall time of the evaluations, in seconds."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    evaluation_seconds: float = 0.0

    def advance(self, method: Method, metrics: Metrics | None, device: torch.device) -> Snapshot | Tick:
        """Run the method to its next event, and add the time it took, or the cost that the snapshot names.

        Raises:
            StopIteration: the method has ended.
        """
        wall, cpu = time.perf_counter(), time.thread_time()
        event = method.send(metrics)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if isinstance(event, Snapshot) and event.cost is not None:
            self.seconds += event.cost.seconds
            self.cpu_seconds += event.cost.cpu_seconds
        else:
            self.seconds += time.perf_counter() - wall
            self.cpu_seconds += time.thread_time() - cpu
        return event

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Add the time of the block to the time of the evaluations."""
        wall = time.perf_counter()
        yield
        self.evaluation_seconds += time.perf_counter() - wall


class Evaluation(BaseModel):
    """One evaluation, with the epoch, step and values at which it was made."""

    model_config = EXACT

    epoch: int
    step: int
    hyperparameters: dict[str, float]
    metrics: Metrics

    @property
    def loss(self) -> float:
        """The validation loss for comparisons; infinite after divergence."""
        return math.inf if self.metrics.diverged else self.metrics.val_loss


class Record(BaseModel):
    """Everything that the result files are written from; the checkpoint stores it as JSON.

    Attributes:
        search: whether each evaluation is a trial of a search.
        first_g: the first g of the planes, by layer; `all` for a plane on all layers.
        g_ratio: the largest later g over the first, by layer; NaN if a g was not a number.
        tables: rows by file name.
        evaluations: all evaluations, in order.
        train_loss: loss after the whole budget without dropout and cutout; None before, and in a search.
        seconds: training time up to the last evaluation.
        clock: times of the whole run.
    """

    model_config = EXACT

    search: bool
    first_g: dict[str, float] = {}
    g_ratio: dict[str, float] = {}
    tables: dict[str, list[dict[str, int | float | str]]] = {}
    evaluations: list[Evaluation] = []
    train_loss: float | None = None
    seconds: float = 0.0
    clock: Clock = Clock()

    def add(self, snapshot: Snapshot, metrics: Metrics) -> dict[str, Sequence[Row]]:
        """Add one evaluation and return the new rows by file name."""
        seconds = self.clock.seconds
        history = {"epoch": snapshot.epoch, "step": snapshot.step, "seconds": seconds, **asdict(metrics)}
        if snapshot.train_loss is not None:
            history["train_loss"] = snapshot.train_loss.item()
        new: dict[str, Sequence[Row]] = {HISTORY: [history]}
        if snapshot.updates:
            new[HYPERPARAMETERS] = [{"update": u, "step": step, **values} for u, step, values in snapshot.updates]
        if snapshot.planes:
            new[PLANES] = [_row(plane) for plane in snapshot.planes]
        self._watch(snapshot.planes)
        if self.search:
            trial = {"trial": len(self.evaluations), **snapshot.hyperparameters, **asdict(metrics)}
            status = "diverged" if metrics.diverged else "done"
            new[TRIALS] = [{**trial, "seconds": seconds - self.seconds, "status": status}]
        for name, rows in new.items():
            self.tables.setdefault(name, []).extend(map(dict, rows))
        values, epoch, step = snapshot.hyperparameters, snapshot.epoch, snapshot.step
        self.evaluations.append(Evaluation(epoch=epoch, step=step, hyperparameters=values, metrics=metrics))
        self.seconds = seconds
        return new

    @property
    def best(self) -> Evaluation:
        """The evaluation with the best validation loss."""
        return min(self.evaluations, key=lambda evaluation: evaluation.loss)

    @property
    def final(self) -> Evaluation:
        """The evaluation that counts: a search's best trial (R11), otherwise the last step (R10)."""
        return self.best if self.search else self.evaluations[-1]

    @property
    def over(self) -> bool:
        """Whether the run must stop, because a gradient method has diverged."""
        return not self.search and bool(self.evaluations) and self.diverged

    @property
    def diverged_by(self) -> str | None:
        """Why the run counts as diverged: `loss`, `g`, or `g of layer` and its number; None if it has not diverged."""
        if self.final.metrics.diverged:
            return "loss"
        away = [layer for layer, ratio in self.g_ratio.items() if not ratio <= RUNAWAY]
        return ("g" if away[0] == "all" else f"g of layer {away[0]}") if away else None

    @property
    def diverged(self) -> bool:
        """Whether the run has diverged: its loss, or the g of a layer."""
        return self.diverged_by is not None

    def _watch(self, planes: Sequence[PlaneState]) -> None:
        """Update the ratio of g to its first value in each layer; the planes of a layer have the same g."""
        for layer, g in {str(plane.layer or "all"): plane.g for plane in planes}.items():
            if layer not in self.first_g and math.isfinite(g):
                self.first_g[layer] = g
            else:
                ratio = g / max(self.first_g.get(layer, math.nan), 1e-30)  # so that a first g of 0 is allowed
                largest = self.g_ratio.get(layer, 0.0)
                self.g_ratio[layer] = largest if ratio <= largest else ratio


def _row(plane: PlaneState) -> dict[str, int | float | str]:
    """Return a row of planes.csv; it has a column `layer` if planes are per layer."""
    return {name: value for name, value in plane._asdict().items() if name != "layer" or value}
