"""The result files: the one place where the tuning half and the reporting half meet."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from cpmlho.study.events import Metrics
from cpmlho.study.files import write_text
from cpmlho.study.spec import RunKey, RunSpec
from cpmlho.study.strict import parse

RESULT = "result.json"
HISTORY = "history.csv"
HYPERPARAMETERS = "hyperparameters.csv"
PLANES = "planes.csv"
TRIALS = "trials.csv"
NETWORK = "network.pt"  # where it is kept

METRICS = ("val_loss", "val_acc", "test_loss", "test_acc")
COLUMNS = {  # that a table along a run has at least
    HISTORY: {"epoch", "step", "seconds", *METRICS},
    HYPERPARAMETERS: {"update", "step"},
    PLANES: {"epoch", "step", "plane", "g", "phi", "mu", "gradient_share"},
    TRIALS: {"trial", "seconds", "status", *METRICS},
}
WHOLE = {"epoch", "step", "update", "plane", "trial"}  # columns of whole numbers; `status` is a word, all else a number
DIGITS = 16  # of a whole number that JSON and MLflow keep
Row = Mapping[str, float | int | str]
Weights = Callable[[], dict[str, Any]]  # a network's state_dict


class RunResult(BaseModel):
    """One run, complete in itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    spec: RunSpec
    status: Literal["done", "diverged"]
    final: Metrics  # gradient methods: at the last step; searches: the trial with the best validation loss
    best: Metrics  # the evaluation with the best validation loss
    train_loss: float | None = None  # after the budget, dropout and cutout off; None: a search, diverged, first edition
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
    tables: list[str] = []  # that the run wrote beside this; earlier results do not say

    @model_validator(mode="after")
    def _has_values_of_what_is_tuned(self) -> Self:
        if self.hyperparameters.keys() != self.spec.data.hyperparameters.keys():
            raise ValueError(f"hyperparameters must be {', '.join(self.spec.data.hyperparameters)}")
        return self

    @property
    def key(self) -> RunKey:
        """The run's name."""
        return RunKey(self.spec.dataset, self.spec.method, self.spec.seed)


def schema() -> str:
    """The JSON Schema of a run's result, as it is written."""
    content = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Result of one run",
        **{name: part for name, part in RunResult.model_json_schema(mode="serialization").items() if name != "title"},
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


class ResultError(Exception):
    """A result file is missing or damaged; the message names it."""


class Observer:
    """What watches a run while it goes: a tracker, a progress display. By itself it does nothing."""

    def started(self, spec: RunSpec, tables: Mapping[str, Sequence[Row]]) -> None:
        """The run is about to train, or to go on from the rows that it had when it was interrupted."""

    def ticked(self, epoch: int) -> None:
        """So many epochs, over all trials, are complete."""

    def evaluated(self, tables: Mapping[str, Sequence[Row]], weights: Weights | None) -> None:
        """New rows, by the file that they will stand in; the weights, if the run would be judged by this evaluation."""

    def finished(self, result: RunResult, folder: Path) -> None:
        """The run's files are written under `folder`."""

    def failed(self, reason: str) -> None:
        """The run ended without a result: an error, or a signal."""


def run_dir(results_dir: str | Path, key: RunKey) -> Path:
    """Folder of one run's files."""
    return Path(results_dir) / "runs" / key.dataset / key.method / f"seed{key.seed}"


def own_tables(folder: Path) -> list[Path]:
    """The tables of the run in a folder; not what else lies there, such as the `._history.csv` of a macOS share."""
    return [folder / name for name in COLUMNS if (folder / name).exists()]


def data_file(results_dir: str | Path, dataset: str) -> Path:
    """The record that a dataset is in place and verified."""
    return Path(results_dir) / "data" / f"{dataset}.json"


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
        ResultError: the file is missing, damaged, of another format, or of another run than its place says; or a table
            of the run is missing.
    """
    try:
        result = RunResult.model_validate(_present(json.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValidationError, ValueError) as error:
        first = " ".join(str(error).split())[:200]
        raise ResultError(f"{path}: not a result of this version, remove it and run again: {first}") from None
    if gone := [name for name in result.tables if not path.with_name(name).exists()]:
        raise damaged(path.with_name(gone[0]), "it is not there")
    if path.parent.parts[-4:-3] == ("runs",) and Path(*path.parent.parts[-4:]) != run_dir("", result.key):
        raise ResultError(f"{path}: is the result of {result.key}; remove it and run again")
    return result


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
        ResultError: the file is missing or damaged: not text, without a column, with a row of another length, or with
            something else where a number must be.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = [{name: _cell(text) for name, text in row.items()} for row in reader]
            header = set(reader.fieldnames or ())
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror}") from None
    except AttributeError:
        raise damaged(path, "a row is of another length than the header") from None
    except (ValueError, csv.Error) as error:
        raise damaged(path, str(error)) from None
    if path.name in COLUMNS:
        if missing := COLUMNS[path.name] - header:
            raise damaged(path, f"no {', '.join(sorted(missing))}")
        for number, row in enumerate(rows, 2):
            if wrong := [name for name, value in row.items() if not _fits(name, value)]:
                raise damaged(path, f"line {number}, {wrong[0]}: {str(row[wrong[0]])[:40]!r}")
    return rows


def damaged(path: Path, what: str) -> ResultError:
    """The error of a file in a run's folder that is not as the run wrote it."""
    return ResultError(f"{path}: damaged, remove its folder and run again: {' '.join(what.split())[:200]}")


def _cell(text: str) -> float | int | str:
    """A cell as the number that it is; the text of one that is none.

    Raises:
        AttributeError: there is no cell, or there are several, as the row has another length than the header.
    """
    if text.lstrip("-").isdecimal() and text.isascii() and len(text) < DIGITS:
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def _fits(name: str, value: object) -> bool:
    if name == "seconds":
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, str if name == "status" else int if name in WHOLE else int | float)
