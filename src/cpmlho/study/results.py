"""The files of a run: what they are, how they are written, and how they are read and checked.

Training writes them; tables, figures, report and MLflow are made from nothing else.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from cpmlho.study.events import Metrics
from cpmlho.study.files import write_text
from cpmlho.study.spec import RunKey, RunSpec
from cpmlho.study.strict import one_line, parse

RESULT = "result.json"
HISTORY = "history.csv"
HYPERPARAMETERS = "hyperparameters.csv"
PLANES = "planes.csv"
TRIALS = "trials.csv"
NETWORK = "network.pt"  # written only if the configuration asks for it

METRICS = ("val_loss", "val_acc", "test_loss", "test_acc")
COLUMNS = {  # the required columns of each table; hyperparameters.csv and trials.csv have one more per hyperparameter
    HISTORY: {"epoch", "step", "seconds", *METRICS},  # and train_loss, except in archived runs
    HYPERPARAMETERS: {"update", "step"},
    PLANES: {"epoch", "step", "plane", "g", "phi", "mu", "gradient_share"},  # and layer, if planes are per layer
    TRIALS: {"trial", "seconds", "status", *METRICS},
}
WHOLE = {"epoch", "step", "update", "plane", "trial", "layer"}  # columns of integers; `status` is text, the rest floats
DIGITS = 16  # integers with fewer digits survive JSON and MLflow
Row = Mapping[str, float | int | str]
Weights = Callable[[], dict[str, Any]]  # a network's state_dict


class RunResult(BaseModel):
    """The content of result.json: one run, complete in itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    spec: RunSpec
    status: Literal["done", "diverged"]
    diverged_by: str | None = None  # "loss", "g" of a plane on all layers, or "g of layer 2"
    final: Metrics  # gradient methods: at the last step; searches: the trial with the best validation loss
    best: Metrics  # the evaluation with the best validation loss
    train_loss: float | None = None  # at the end, without dropout and cutout; None: a search, diverged, not recorded
    hyperparameters: dict[str, float]  # final values, in their own units
    g_ratio: dict[str, float] = {}  # largest later g over the first g, by layer ("all": a plane on all layers)
    steps: int  # training iterations, over all trials
    train_seconds: float  # wall time of training without evaluation
    train_cpu_seconds: float
    evaluation_seconds: float
    total_seconds: float  # wall time from the start of the process to this file
    peak_memory_mb: float
    device: str
    precision: Literal["float32", "bfloat16"]  # the one that `auto` chose
    versions: dict[str, str]
    git_commit: str
    numerics: int  # `cpmlho.study.numerics.NUMERICS` of the code that made the run
    plugins: dict[str, str] = {}  # SHA-256 of the users' own files that define network, reader and method
    data_sha256: dict[str, str]
    started: str | None = None  # UTC; None: not recorded
    ended: str | None = None
    environment: dict[str, str] = {}  # processor, instructions, threads, system, further versions
    tables: list[str] = []  # the names of the CSV files next to this file

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.hyperparameters.keys() != self.spec.data.hyperparameters.keys():
            raise ValueError(f"hyperparameters must be {', '.join(self.spec.data.hyperparameters)}")
        if self.status == "done" and (self.diverged_by or self.final.diverged):
            raise ValueError(f"status is done, but the run has diverged by {self.diverged_by or 'loss'}")
        return self

    @property
    def key(self) -> RunKey:
        """The dataset, method and seed that name the run."""
        return RunKey(self.spec.dataset, self.spec.method, self.spec.seed)


class ResultError(Exception):
    """A result file is missing or damaged; the message names it."""


class Observer:
    """Base class of everything that follows a run, such as a tracker or a progress display."""

    def started(self, spec: RunSpec, tables: Mapping[str, Sequence[Row]]) -> None:
        """Called before training, with the rows of an interrupted attempt."""

    def ticked(self, epoch: int) -> None:
        """Called with the number of completed epochs, over all trials."""

    def evaluated(self, tables: Mapping[str, Sequence[Row]], weights: Weights | None) -> None:
        """Called with the new rows of each table, and with the weights if this evaluation counts so far."""

    def finished(self, result: RunResult, folder: Path) -> None:
        """Called after the run's files are written into `folder`."""

    def failed(self, reason: str) -> None:
        """Called when the run ends without a result: an error, or a signal."""


def run_dir(results_dir: str | Path, key: RunKey) -> Path:
    """Return the folder of one run's files."""
    return Path(results_dir) / "runs" / key.dataset / key.method / f"seed{key.seed}"


def data_file(results_dir: str | Path, dataset: str) -> Path:
    """Return the file that records that a dataset is in place and verified."""
    return Path(results_dir) / "data" / f"{dataset}.json"


def own_tables(folder: Path) -> list[Path]:
    """Return the tables of the run in a folder, without other files such as the `._history.csv` of a macOS share."""
    return [folder / name for name in COLUMNS if (folder / name).exists()]


def schema() -> str:
    """Return the JSON Schema of result.json."""
    content = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **RunResult.model_json_schema(mode="serialization"),
        "title": "Result of one run",
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


# Writing


def to_csv(rows: Sequence[Row]) -> str:
    """Return rows as CSV with the first row's keys as header; floats keep every digit."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_run(folder: Path, result: RunResult, tables: Mapping[str, Sequence[Row]]) -> None:
    """Write a run's files; result.json comes last, so that its presence means that the run is complete.

    Args:
        folder: the run's folder.
        result: the content of result.json.
        tables: rows by file name, such as `history.csv`.
    """
    for name, rows in tables.items():
        write_text(folder / name, to_csv(rows))
    write_text(folder / RESULT, result.model_dump_json(indent=1) + "\n")


# Reading


def read_result(path: Path) -> RunResult:
    """Read one result.json, and check that it agrees with its place and with the tables next to it.

    Raises:
        ResultError: the file is missing, damaged, of another version, or of another run than its place says; one of its
            tables is missing; or its metrics are not those of history.csv.
    """
    try:
        result = RunResult.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        said = one_line(error)[:200]
        raise ResultError(f"{path}: not a result of this version, remove it and run again: {said}") from None
    if path.parent.parts[-4:-3] == ("runs",) and Path(*path.parent.parts[-4:]) != run_dir("", result.key):
        raise ResultError(f"{path}: is the result of {result.key}; remove it and run again")
    if missing := [name for name in result.tables if not path.with_name(name).exists()]:
        raise damaged(path.with_name(missing[0]), "it is not there")
    history = read_rows(path.with_name(HISTORY))
    if (last := history[-1]["step"] if history else 0) != result.steps:
        raise damaged(path.with_name(HISTORY), f"it ends at step {last}, but {RESULT} at {result.steps}")
    if wrong := _unlike(result, history):
        raise damaged(path, wrong)
    return result


def _unlike(result: RunResult, history: Sequence[Mapping[str, Any]]) -> str:
    """Return a line about the first metric that differs from history.csv; empty if none does."""
    evaluations = [Metrics(**{name: row[name] for name in METRICS}) for row in history]
    best = min(evaluations, key=lambda metrics: math.inf if metrics.diverged else metrics.val_loss)
    final = evaluations[-1] if result.spec.trials is None else best
    for which, ours, theirs in (("final", result.final, final), ("best", result.best, best)):
        for name in METRICS:
            a, b = getattr(ours, name), getattr(theirs, name)
            if a != b and not (math.isnan(a) and math.isnan(b)):
                return f"{which}.{name} is {a}, but {HISTORY} has {b}"
    return ""


def pinned_at(results_dir: str | Path, dataset: str) -> dict[str, str] | None:
    """Return the checksums in a dataset's record; None if there is no record.

    Raises:
        ResultError: it is damaged.
    """
    path = data_file(results_dir, dataset)
    try:
        return {str(name): str(value) for name, value in json.loads(path.read_text(encoding="utf-8"))["sha256"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise ResultError(f"{path}: damaged; remove it to pin the data that are there now") from None


def with_values(spec: RunSpec, results_dir: str | Path) -> RunSpec:
    """Return the specification; if it takes its values from another run, with that run's final values as start values.

    Raises:
        ResultError: the other run's result is missing or damaged.
        ConfigError: a value lies on the bound of its range.
    """
    if (method := spec.values_of) is None:
        return spec
    path = run_dir(results_dir, RunKey(spec.dataset, method, spec.seed)) / RESULT
    content = spec.model_dump(mode="json")
    for name, value in read_result(path).hyperparameters.items():
        content["data"]["hyperparameters"][name]["start"] = value
    return parse(RunSpec, json.dumps(content), str(path))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of one of a run's CSV files, numbers as numbers.

    Raises:
        ResultError: the file is missing or damaged: it is not text, lacks a column, has a row of another length than
            the header, or text in place of a number.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lines, header = list(reader), set(reader.fieldnames or ())
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        raise damaged(path, str(error)) from None
    if any(None in line or None in line.values() for line in lines):
        raise damaged(path, "a row is of another length than the header")
    rows = [{name: _cell(text) for name, text in line.items()} for line in lines]
    if path.name in COLUMNS:
        if missing := COLUMNS[path.name] - header:
            raise damaged(path, f"no {', '.join(sorted(missing))}")
        for number, row in enumerate(rows, 2):
            if wrong := [name for name, value in row.items() if not _fits(name, value)]:
                raise damaged(path, f"line {number}, {wrong[0]}: {str(row[wrong[0]])[:40]!r}")
    return rows


def damaged(path: Path, what: str) -> ResultError:
    """Return the error about a file in a run's folder that is not as the run wrote it."""
    return ResultError(f"{path}: damaged, remove its folder and run again: {' '.join(what.split())[:200]}")


def _cell(text: str) -> float | int | str:
    """Return a cell as an int or a float, or as text if it is neither."""
    if text.removeprefix("-").isdecimal() and text.isascii() and len(text) < DIGITS:
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def _fits(name: str, value: object) -> bool:
    if name == "seconds":
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, str if name == "status" else int if name in WHOLE else int | float)
