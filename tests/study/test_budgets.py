"""Comparisons at equal budget on made-up runs: work is counted in gradients, not time, and runs are paired by seed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_reporting import load, write

from cpmlho.study.events import Metrics
from cpmlho.study.files import write_text
from cpmlho.study.methods import METHODS
from cpmlho.study.protocol import Protocol, RunKey
from cpmlho.study.report.work import anytime, evaluations
from cpmlho.study.report.write import study_of
from cpmlho.study.results import HISTORY, run_dir, to_csv


def trained(protocol: Protocol, method: str, seed: int, losses: list[float], steps: int = 10) -> None:
    """Write a run of MNIST with these validation losses, `steps` apart."""
    key = RunKey("mnist", method, seed)
    metrics = [Metrics(loss, 1 - loss, loss + 0.1, 0.9 - loss) for loss in losses]
    best = min(metrics, key=lambda each: each.val_loss)
    final = best if protocol.resolve(key).trials else metrics[-1]
    write(protocol, key, losses[-1], final=final, best=best, steps=steps * len(losses))
    rows = [{"epoch": i, "step": steps * i, "seconds": float(i), **asdict(each)} for i, each in enumerate(metrics, 1)]
    write_text(run_dir(protocol.results_dir, key) / HISTORY, to_csv(rows))


def of(tmp_path: Path, **run: Any) -> Protocol:
    return load(tmp_path, run={"datasets": ["mnist"], "seeds": [0, 1], "variants": [], **run})


def rows_of(protocol: Protocol, name: str) -> list[dict[Any, Any]]:
    return study_of(protocol).table(name).to_dict("records")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("random_search", 1),
        ("bayesian_optimization", 1),
        ("fixed", 1),
        ("delta_stn", 2 + 1 / 5),
        ("cpmlho", 2 + 2 / 5),
        ("cpmlho_cuts_only", 2 + 1 / 5),
    ],
)
def test_gradients_of_an_iteration(tmp_path: Path, method: str, expected: float) -> None:
    spec = load(tmp_path).resolve(RunKey("mnist", method, 0))
    assert METHODS[spec.algorithm].gradients(spec.settings) == pytest.approx(expected)


def test_anytime_is_the_best_so_far_at_each_point() -> None:
    seeds = {0: [(1.0, 0.9), (3.0, 0.5), (4.0, 0.4)], 1: [(2.0, 0.8), (5.0, 0.3)], 2: [(1.5, 0.6), (2.5, 0.55)]}
    rows = [{"seed": seed, "seconds": x, "best": y} for seed, points in seeds.items() for x, y in points]
    curve = anytime(pd.DataFrame(rows), "seconds")
    assert (curve["seconds"].iloc[0], curve["seconds"].iloc[-1]) == (2.0, 5.0)
    for point in curve.itertuples():
        best = sorted(min(y for x, y in points if x <= point.seconds) for points in seeds.values())
        quartiles = (best[0] + best[1]) / 2, best[1], (best[1] + best[2]) / 2  # of three
        assert (point.low, point.median, point.high) == pytest.approx(quartiles)
    assert set(curve["n_seeds"]) == {3}


def test_a_search_is_cut_at_the_gradients_of_one_delta_stn_run(tmp_path: Path) -> None:
    protocol = of(tmp_path)
    for seed in (0, 1):
        trained(protocol, "delta_stn", seed, [0.5, 0.4, 0.3])  # 30 steps of 2.2
        trained(protocol, "random_search", seed, [0.9 + seed, 0.7, 0.8, 0.2], steps=30)  # 66 gradients: two trials
    (row,) = rows_of(protocol, "equal_compute")
    assert (row["method"], row["cut_trials"], row["full_trials"]) == ("random_search", 2, 10)
    assert (row["cut_mean"], row["full_mean"]) == pytest.approx((0.7, 0.2))
    assert row["full_cost"] == pytest.approx(120 / 66)


def test_transfer_pairs_a_run_with_the_one_that_took_its_values(tmp_path: Path) -> None:
    protocol = of(tmp_path, variants=["cpmlho_values"])
    trained(protocol, "cpmlho", 0, [0.5, 0.4])
    trained(protocol, "cpmlho", 1, [0.5, 0.2])
    trained(protocol, "cpmlho_values", 1, [0.5, 0.25])
    (row,) = rows_of(protocol, "transfer")
    assert (row["source"], row["retrained"], row["difference_n_seeds"]) == ("cpmlho", "cpmlho_values", 1)
    assert (row["tuned_mean"], row["retrained_mean"], row["difference_mean"]) == pytest.approx((0.2, 0.25, 0.05))


def test_optimism_is_test_minus_validation(tmp_path: Path) -> None:
    protocol = of(tmp_path)
    trained(protocol, "cpmlho", 0, [0.4])
    trained(protocol, "cpmlho", 1, [0.2])
    (row,) = rows_of(protocol, "optimism")
    assert (row["val_loss"], row["test_loss"], row["gap_mean"]) == pytest.approx((0.3, 0.4, 0.1))


def test_without_runs_there_is_nothing(tmp_path: Path) -> None:
    protocol = of(tmp_path)
    assert evaluations(study_of(protocol)).empty
    for name in ("equal_compute", "transfer", "optimism"):
        assert rows_of(protocol, name) == []
