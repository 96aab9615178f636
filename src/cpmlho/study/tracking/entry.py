"""What a run's entry in MLflow says: its name, tags, metrics and times, from its specification, rows and files."""

from __future__ import annotations

import getpass
import hashlib
import json
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from cpmlho.study.results import (
    HISTORY,
    HYPERPARAMETERS,
    METRICS,
    NETWORK,
    PLANES,
    RESULT,
    Row,
    RunResult,
    damaged,
    own_tables,
)
from cpmlho.study.spec import RunSpec
from cpmlho.study.tracking.store import NOTE

DIGEST = "files_sha256"
LAYOUT = b"2"  # of an entry: another one here, and `track` writes every entry anew
TIMES = ("train_seconds", "train_cpu_seconds", "evaluation_seconds", "total_seconds")

Tables = Mapping[str, Sequence[Row]]


class Times(NamedTuple):
    """When a run did what, in milliseconds since the epoch.

    Attributes:
        started, ended: of the run.
        evaluations: by step and share of the training, each in [0, 1].
    """

    started: int
    ended: int
    evaluations: tuple[tuple[int, float], ...] = ()

    @classmethod
    def now(cls) -> Self:
        """Everything at this moment."""
        now = int(time.time() * 1000)
        return cls(now, now)

    @classmethod
    def past(cls, result: RunResult, tables: Tables, folder: Path) -> Self:
        """From what the result says; where it says nothing, from its file's time, which from an archive may be 0.

        Raises:
            ResultError: it says no time.
        """
        try:
            ended = _moment(result, "ended") or (folder / RESULT).stat().st_mtime
            started = _moment(result, "started") or max(ended - result.total_seconds, 0)
            _ = [datetime.fromtimestamp(moment, UTC) for moment in (started, ended)]
        except (ValueError, OverflowError) as error:
            raise damaged(folder / RESULT, f"when it was made: {error}") from None
        rows = tables.get(HISTORY, ())
        whole = float(rows[-1]["seconds"]) if rows else 0.0
        shares = tuple((int(row["step"]), float(row["seconds"]) / whole if whole else 1.0) for row in rows)
        return cls(int(started * 1000), int(ended * 1000), shares)

    def after(self, share: float) -> int:
        """When so much of the training was done."""
        return self.started + int((self.ended - self.started) * min(share, 1.0))

    def at(self, step: int) -> int:
        """When the values of a step were known: at the first evaluation from there on."""
        index = bisect_left(self.evaluations, (step, 0.0))
        return self.after(self.evaluations[index][1]) if index < len(self.evaluations) else self.ended


def title(spec: RunSpec) -> str:
    """A run's name: method and seed, then what a variant changes, since a narrow column cuts off the end."""
    base = spec.algorithm
    if spec.method.startswith(f"{base}_"):
        return f"{base} seed{spec.seed} {spec.method.removeprefix(f'{base}_')}"
    return f"{spec.method} seed{spec.seed}"


def nouns(spec: RunSpec) -> dict[str, str]:
    """What a run and its trials are grouped by."""
    change = ", ".join(f"{name} {value}" for name, value in flatten(spec.changes))
    return {
        "method": spec.method,
        "seed": str(spec.seed),
        "dataset": spec.dataset,
        "base": spec.algorithm,
        "change": change or "none",
        "precision": spec.precision,
    }


def first_tags(spec: RunSpec, commit: str) -> dict[str, str]:
    """The tags that a run begins with."""
    return {
        **nouns(spec),
        **git(commit),
        "config_hash": sha256(spec.model_dump_json(indent=1))[:12],
        **source(f"run {spec.dataset} {spec.method} {spec.seed}"),
        NOTE: f"**{spec.method}** on **{spec.dataset}**, seed {spec.seed}. Everything that decides its numbers is in"
        f" `spec.json`; this entry is a view of the files under `runs/{spec.dataset}/{spec.method}/seed{spec.seed}`.",
    }


def last_tags(result: RunResult, folder: Path) -> dict[str, str]:
    """The tags that say how a run ended; a diverged run is a finished one with another status."""
    resolved = {"status": result.status, "device": result.device, "precision": result.precision}
    return {**resolved, DIGEST: digest(run_files(folder)), **git(result.git_commit)}


def points(tables: Tables) -> dict[tuple[str, int], Any]:
    """The metrics in a run's rows, by name and step; what a run is judged by comes first."""
    found = {(name, int(row["step"])): row[name] for name in METRICS for row in tables.get(HISTORY, ())}
    for row in tables.get(HYPERPARAMETERS, ()):
        found |= {(f"hyperparameter/{name}", int(row["step"])): row[name] for name in row if name not in _INDEX}
    return found | _planes(tables.get(PLANES, ()))


def outcome(result: RunResult, tables_hold_values: bool) -> dict[tuple[str, int], Any]:
    """The metrics of a run as a whole; `tables_hold_values`: the hyperparameters are in `points` already."""
    values = {f"final_{name}": value for name, value in asdict(result.final).items()}
    values |= {"best_val_loss": result.best.val_loss}
    values |= result.model_dump(include={*TIMES, "peak_memory_mb"})
    found = {(name, 0): value for name, value in values.items()}
    if not tables_hold_values:
        found |= {(f"hyperparameter/{name}", result.steps): value for name, value in result.hyperparameters.items()}
    return found


def trial(row: Row) -> tuple[str, str, dict[str, Any], dict[tuple[str, int], Any]]:
    """The name, status, hyperparameters and metrics of one trial."""
    metrics = {(name, 0): row[name] for name in (*METRICS, "seconds")}
    values = {
        name: value for name, value in row.items() if name not in ("trial", "status") and (name, 0) not in metrics
    }
    return f"trial{row['trial']}", str(row["status"]), values, metrics


def run_files(folder: Path) -> dict[str, Path]:
    """The files of a run that its entry holds, by name."""
    network = [folder / NETWORK] if (folder / NETWORK).exists() else []
    return {path.name: path for path in (folder / RESULT, *own_tables(folder), *network)}


def summary_files(folder: Path) -> dict[str, Path]:
    """Tables, figures and report, by their paths under `folder`."""
    paths = [folder / "report.html", *folder.glob("tables/[!.]*"), *folder.glob("figures/[!.]*")]
    return {path.relative_to(folder).as_posix(): path for path in sorted(paths) if path.is_file()}


def digest(files: Mapping[str, Path]) -> str:
    """SHA-256 of what an entry is made from."""
    found = hashlib.sha256(LAYOUT)
    for name, path in files.items():
        found.update(name.encode() + path.read_bytes())
    return found.hexdigest()


def dataset(spec: RunSpec) -> dict[str, str]:
    """The data that a run trains on, by name and checksums."""
    sums = json.dumps(spec.data.sha256, sort_keys=True)
    source = json.dumps({"uri": f"{spec.data_dir}/{spec.data.folder}"})
    return {"name": spec.dataset, "digest": sha256(sums)[:16], "source": source, "profile": sums}


def git(commit: str) -> dict[str, str]:
    """The tags that name the code."""
    clean = commit.removesuffix("-dirty")
    return {"mlflow.source.git.commit": clean, "commit": clean[:12], "git.dirty": str(clean != commit).lower()}


def source(command: str) -> dict[str, str]:
    """The tags that say by whom and by which command of this project a run was made."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return {"mlflow.user": user, "mlflow.source.name": f"python -m cpmlho {command}", "mlflow.source.type": "LOCAL"}


def sha256(text: str) -> str:
    """Of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree, each with its path."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


_INDEX = ("update", "step")


def _planes(rows: Sequence[Row]) -> dict[tuple[str, int], Any]:
    """The newest and the oldest active plane of each epoch, and what all share: few names, however many planes."""
    epochs: dict[int, list[Row]] = {}
    for row in rows:
        epochs.setdefault(int(row["step"]), []).append(row)
    found: dict[tuple[str, int], Any] = {}
    for step, active in epochs.items():
        active.sort(key=lambda row: int(row["plane"]))
        found |= {(f"planes/{name}", step): active[-1][name] for name in ("g", "gradient_share")}
        found |= {("planes/newest_phi", step): active[-1]["phi"]}  # its mu is as all begin
        found |= {(f"planes/oldest_{name}", step): active[0][name] for name in ("phi", "mu")}
    return found


def _moment(result: RunResult, name: str) -> float | None:
    text = getattr(result, name, None)
    return datetime.fromisoformat(text).timestamp() if text else None
