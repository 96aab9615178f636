"""The progress of a run, one line per epoch: readable in a log, and on a terminal that several runs share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cpmlho.study.results import HISTORY, Observer, Row, RunResult, Weights
from cpmlho.study.spec import RunKey, RunSpec


class Progress(Observer):
    """Prints the name of the run, its progress, its validation loss and the time left.

    Args:
        spec: the run.
        say: prints a line.
    """

    def __init__(self, spec: RunSpec, say: Callable[[str], None]) -> None:
        self._name = str(RunKey(spec.dataset, spec.method, spec.seed))
        self._trials = spec.trials
        self._epochs = round(spec.data.epochs * spec.trainings)
        self._per_trial = spec.data.epochs
        self._alike = spec.trainings == self._trials  # whether each trial is one full training
        self._say = say
        self._start = time.monotonic()
        self._before = 0  # epochs of an interrupted attempt

    def started(self, spec: RunSpec, tables: Mapping[str, Sequence[Row]]) -> None:
        """Start the clock."""
        self._start = time.monotonic()
        trials = f"{self._trials} trials {'of' if self._alike else 'over'} " if self._trials else ""
        self._line(f"started, {trials}{self._per_trial if self._alike else self._epochs} epochs")
        for row in tables.get(HISTORY, ())[-1:]:
            self._before = int(row["epoch"])
            self._line(f"resuming after {self._where(self._before)}")

    def ticked(self, epoch: int) -> None:
        """Report an epoch without an evaluation."""
        if epoch % self._per_trial:
            self._line(f"{self._where(epoch)}{self._left(epoch)}")

    def evaluated(self, tables: Mapping[str, Sequence[Row]], weights: Weights | None) -> None:
        """Report an evaluation."""
        for row in tables.get(HISTORY, ()):
            epoch = int(row["epoch"])
            scores = f"val loss {row['val_loss']:.4f}  val acc {row['val_acc']:.4f}"
            self._line(f"{self._where(epoch)}  {scores}{self._left(epoch)}")

    def finished(self, result: RunResult, folder: Path) -> None:
        """Report the end of the run."""
        took = _duration(result.total_seconds)
        self._line(f"{result.status}, final val loss {result.final.val_loss:.4f}, in {took}, written to {folder}")

    def failed(self, reason: str) -> None:
        """Say that the run was stopped; an error is reported by the command itself."""
        if reason == "interrupted":
            self._line("stopped")

    def _where(self, epoch: int) -> str:
        if not self._alike:
            return f"epoch {epoch}/{self._epochs}"
        before = max(epoch - 1, 0) // self._per_trial  # complete trials; an evaluation may come before the first epoch
        return f"trial {before + 1}/{self._trials} epoch {epoch - before * self._per_trial}/{self._per_trial}"

    def _left(self, epoch: int) -> str:
        if epoch <= self._before:  # the rate is not known yet
            return ""
        spent = time.monotonic() - self._start
        return f"  {_duration(spent / (epoch - self._before) * (self._epochs - epoch))} left"

    def _line(self, text: str) -> None:
        self._say(f"{time.strftime('%H:%M:%S')}  {self._name:<40}  {text}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
