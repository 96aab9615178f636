"""One tidy table of all runs that the protocol asks for, and the statistics over seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd
from scipy.stats import t

from cpmlho.study.protocol import ConfigError, Protocol, RunKey, RunSpec
from cpmlho.study.report.equality import changes_since
from cpmlho.study.results import METRICS, RESULT, ResultError, read_result, run_dir, with_values
from cpmlho.study.settings import HyperparameterName

MISSING = "missing"
_COPIED = (
    *("steps", "train_seconds", "train_cpu_seconds", "evaluation_seconds", "total_seconds", "peak_memory_mb"),
    *("device", "git_commit", "code", "precision"),
)
_METRICS = tuple(f"{which}_{metric}" for which in ("final", "best") for metric in METRICS)
_HYPERPARAMETERS = tuple(f"hyperparameter_{name}" for name in get_args(HyperparameterName))
# The runs of one dataset are compared with each other; they should agree in these columns.
_SHARED = {
    "precision": "precision",
    "device": "device",
    "versions_digest": "library versions",
    "data_digest": "data checksums",
}
_UNLIKE_THE_PRESENT = {
    "stale": "with other settings than the protocol's",
    "outdated": "by other code than the present",
}
COLUMNS = (
    *("dataset", "method", "algorithm", "seed", "status", *_METRICS, *_HYPERPARAMETERS, *_COPIED),
    *("network", "epochs", "trials", "data_digest", "versions_digest", "config_digest", "stale", "outdated"),
)


class Summary(NamedTuple):
    """Mean, sample standard deviation and 95 % Student-t interval over seeds; NaN where they are undefined."""

    mean: float
    std: float
    ci_low: float
    ci_high: float
    n_seeds: int


def half_width(n: int) -> float:
    """Half of the 95 % Student-t interval of a mean of `n` values, in units of their sample standard deviation."""
    return float(t.ppf(0.975, n - 1)) / n**0.5 if n > 1 else float("nan")


def summarise(values: Iterable[float]) -> Summary:
    """Summarise one number over seeds."""
    array = np.fromiter(values, dtype=float)
    n = len(array)
    mean = float(array.mean()) if n else float("nan")
    std = float(array.std(ddof=1)) if n > 1 else float("nan")
    half = half_width(n) * std
    return Summary(mean, std, mean - half, mean + half, n)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _asked(protocol: Protocol, key: RunKey) -> RunSpec:
    """What the protocol asks for, with another run's values where it names one that has ended."""
    asked = protocol.resolve(key)
    try:
        return with_values(asked, protocol.results_dir)
    except (ConfigError, ResultError):
        return asked


def _row(protocol: Protocol, key: RunKey) -> dict[str, Any]:
    path = run_dir(protocol.results_dir, key) / RESULT
    result = read_result(path) if path.exists() else None
    asked = _asked(protocol, key)
    spec = result.spec if result else asked
    row = {
        **key._asdict(),
        "algorithm": spec.settings.algorithm,
        "status": result.status if result else MISSING,
        "network": spec.data.network.kind,
        "epochs": spec.data.epochs,
        "trials": getattr(spec.settings, "trials", None),
        "config_digest": _digest(spec.model_dump(mode="json")),
        "stale": spec != asked,
        "outdated": result is not None and changes_since(spec.settings.algorithm, result.code) is None,
    }
    if result:
        for which, metrics in (("final", result.final), ("best", result.best)):
            row |= {f"{which}_{name}": value for name, value in metrics.model_dump().items()}
        row |= {f"hyperparameter_{name}": value for name, value in result.hyperparameters.items()}
        row |= {name: getattr(result, name) for name in _COPIED}
        row["data_digest"] = _digest(result.data_sha256)
        row["versions_digest"] = _digest(result.versions)
    return row


def read_runs(protocol: Protocol) -> pd.DataFrame:
    """Every run that the protocol asks for, a row each; a run without a result has the status `missing`.

    Raises:
        ResultError: a result file is damaged.
    """
    keys = protocol.keys()
    return pd.DataFrame([_row(protocol, key) for key in keys], columns=list(COLUMNS)).astype(
        {"steps": "Int64", "trials": "Int64"}
    )


def by_method(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Dataset, method and their rows, in the order of the rows."""
    for (dataset, method), group in frame.groupby(["dataset", "method"], sort=False):
        yield str(dataset), str(method), group


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that means are taken over: neither missing nor diverged."""
    return runs[runs["status"] == "done"]


def incomplete(runs: pd.DataFrame) -> str:
    """What a mean over `runs` leaves out, such as `n=2/3, 1 diverged`; empty if nothing."""
    counts = {status: int((runs["status"] == status).sum()) for status in ("diverged", MISSING)}
    left_out = [f"{count} {status}" for status, count in counts.items() if count]
    return ", ".join([f"n={len(finished(runs))}/{len(runs)}", *left_out]) if left_out else ""


def flags(runs: pd.DataFrame) -> list[str]:
    """What makes the runs of a dataset unlike each other, or unlike what the protocol asks for; one line each."""
    found = []
    for dataset, group in runs[runs["status"] != MISSING].groupby("dataset", sort=False):
        for column, name in _SHARED.items():
            counts = group[column].value_counts().sort_index()
            if len(counts) > 1:
                values = ", ".join(f"{value} ({count})" for value, count in counts.items())
                found.append(f"{dataset}: runs of different {name} are compared: {values}")
        for column, said in _UNLIKE_THE_PRESENT.items():
            runs_so = [f"{row.method}/seed{row.seed}" for row in group[group[column]].itertuples()]
            if runs_so:
                found.append(f"{dataset}: made {said}: {', '.join(runs_so)}")
    return found


def paired(runs: pd.DataFrame, method: str, other: str, column: str) -> Summary:
    """Differences `method` minus `other` over the seeds that both finished, on one dataset."""
    by_seed = finished(runs).pivot(index="seed", columns="method", values=column).reindex(columns=[method, other])
    return summarise((by_seed[method] - by_seed[other]).dropna())


def significant_best(runs: pd.DataFrame, column: str, *, lowest: bool) -> str | None:
    """The method of the best mean on one dataset, if its paired interval against the second excludes zero."""
    means = finished(runs).groupby("method", sort=False)[column].mean().sort_values(ascending=lowest, kind="stable")
    if len(means) < 2:
        return None
    best, second = means.index[:2]
    difference = paired(runs, best, second, column)
    better = difference.ci_high < 0 if lowest else difference.ci_low > 0
    return str(best) if better else None
