"""The result files: the one place where the tuning half and the reporting half meet."""

from __future__ import annotations

import csv
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from cpmlho.core.events import Metrics
from cpmlho.study.spec import RunKey, RunSpec
from cpmlho.study.strict import parse

RESULT = "result.json"
HISTORY = "history.csv"
HYPERPARAMETERS = "hyperparameters.csv"
PLANES = "planes.csv"
TRIALS = "trials.csv"
LOCK = ".lock"

METRICS = ("val_loss", "val_acc", "test_loss", "test_acc")
Row = Mapping[str, float | int | str]


class RunResult(BaseModel):
    """One run, complete in itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    spec: RunSpec
    status: Literal["done", "diverged"]
    final: Metrics  # gradient methods: at the last step; searches: the trial with the best validation loss
    best: Metrics  # the evaluation with the best validation loss
    train_loss: float | None = None  # after the budget, dropout and cutout off; None in searches and the first edition
    hyperparameters: dict[str, float]  # final values, in their own units
    steps: int  # training iterations, over all trials
    train_seconds: float  # wall time of training apart from evaluation
    train_cpu_seconds: float
    evaluation_seconds: float
    total_seconds: float  # wall time from the start of the process to this file
    peak_memory_mb: float
    device: str
    precision: Literal["float32", "bfloat16"]  # that `auto` stood for
    versions: dict[str, str]
    git_commit: str
    code: str  # digest of the modules that decide the numbers
    data_sha256: dict[str, str]
    started: str | None = None  # UTC; the first edition did not record it, nor the environment
    ended: str | None = None
    environment: dict[str, str] = {}  # processor, instructions of the products, threads, system, further versions

    @property
    def key(self) -> RunKey:
        """The run's name."""
        return RunKey(self.spec.dataset, self.spec.method, self.spec.seed)


class ResultError(Exception):
    """A result file is missing or damaged; the message names it."""


class Observer(Protocol):
    """What watches a run while it goes: a tracker, a progress display. It may fail without the run failing."""

    def started(self, spec: RunSpec, tables: Mapping[str, Sequence[Row]]) -> None:
        """The run is about to train, or to go on from the rows that it had when it was interrupted."""

    def ticked(self, epoch: int) -> None:
        """So many epochs, over all trials, are complete."""

    def evaluated(self, tables: Mapping[str, Sequence[Row]]) -> None:
        """New rows, by the name of the file that they will stand in."""

    def finished(self, result: RunResult, folder: Path) -> None:
        """The run's files are written under `folder`."""

    def failed(self, reason: str) -> None:
        """The run ended without a result: an error, or a signal."""


def run_dir(results_dir: str | Path, key: RunKey) -> Path:
    """Folder of one run's files."""
    return Path(results_dir) / "runs" / key.dataset / key.method / f"seed{key.seed}"


def data_file(results_dir: str | Path, dataset: str) -> Path:
    """The record that a dataset is in place and verified."""
    return Path(results_dir) / "data" / f"{dataset}.json"


def write_text(path: Path, text: str) -> None:
    """Write a file of text, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, *content: bytes | memoryview) -> None:
    """Write a file from its parts so that it is never seen half-written: a temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def held(folder: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Hold a folder against other processes of this project; however a process ends, it lets go.

    The lock is of a file open for writing, as NFS locks nothing else; it stays, as removing it would be a race.

    Args:
        folder: made if there is none.
        busy: called where another process holds it: says so, and this process then waits, or raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as file:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                busy()
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def to_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV, with the first row's keys as header; floats keep every digit."""
    lines: list[str] = []

    class _Lines:
        def write(self, line: str) -> None:
            lines.append(line)

    writer = csv.DictWriter(_Lines(), fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return "".join(lines)


def write_run(folder: Path, result: RunResult, tables: Mapping[str, Sequence[Row]]) -> None:
    """Write a run's files; result.json comes last, so that its presence says that the run is complete.

    Args:
        folder: the run's folder.
        result: the content of result.json.
        tables: rows by file name, such as `history.csv`.
    """
    for name, rows in tables.items():
        write_text(folder / name, to_csv(rows))
    write_text(folder / RESULT, result.model_dump_json(indent=1) + "\n")


def read_result(path: Path) -> RunResult:
    """Read one result.json.

    Raises:
        ResultError: the file is missing, damaged, or of another format.
    """
    try:
        return RunResult.model_validate(_present(json.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValidationError, ValueError) as error:
        first = " ".join(str(error).split())[:200]
        raise ResultError(f"{path}: not a result of this version, remove it and run again: {first}") from None


def _present(content: Any) -> Any:
    """A result as it would be written now.

    In the first edition planes also pulled where their constraint held and were cut after whole epochs, and `stn` was
    a variant of Delta-STN.
    """
    match content:
        case {"spec": {"settings": {"wh_at": _} as settings, "changes": changes} as spec}:
            varied = {**changes, "settings": _renamed(changes["settings"])} if "settings" in changes else changes
            settings = {**_renamed(settings), "force": "always", "cut_steps": None}
            return {**content, "spec": {**spec, "settings": settings, "changes": varied}}
        case {"spec": {"method": "stn", "settings": {"algorithm": "delta_stn"}} as spec}:
            return {**content, "spec": {**spec, "method": "stn_two_steps"}}
    return content


def _renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"constraint" if name == "wh_at" else name: value for name, value in settings.items()}


def with_values(spec: RunSpec, results_dir: str | Path) -> RunSpec:
    """The specification, with the values that another run ended at as its own where it names one.

    Raises:
        ResultError: the other run's result is missing or damaged.
        ConfigError: a value lies on the bound of its range.
    """
    method = spec.values_of
    if method is None:
        return spec
    path = run_dir(results_dir, RunKey(spec.dataset, method, spec.seed)) / RESULT
    content = spec.model_dump(mode="json")
    for name, value in read_result(path).hyperparameters.items():
        content["data"]["hyperparameters"][name]["start"] = value
    return parse(RunSpec, json.dumps(content), str(path))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of one of a run's CSV files, numbers as numbers.

    Raises:
        ResultError: the file is missing.
    """

    def number(text: str) -> Any:
        try:
            value = float(text)
        except ValueError:
            return text
        return int(text) if text.lstrip("-").isdigit() else value

    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{key: number(value) for key, value in row.items()} for row in csv.DictReader(file)]
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror}") from None
