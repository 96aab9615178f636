"""Comparison of two sets of the same runs: to the last digit, and in standard deviations over the seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_results import result, spec_of, write

from cpmlho.study.compare import Agreement, agreement, compare
from cpmlho.study.events import Metrics
from cpmlho.study.results import HISTORY, METRICS, RESULT, ResultError
from cpmlho.study.spec import RunKey

LOSSES = {"delta_stn": (0.31, 0.32), "cpmlho": (0.28, 0.3)}


def made(folder: Path, method: str, seed: int, loss: float, **changes: object) -> None:
    """One run under a folder."""
    spec = spec_of(method).model_copy(update={"seed": seed})
    metrics = Metrics(val_loss=loss, val_acc=0.9, test_loss=0.2, test_acc=0.8)
    row = {"epoch": 1, "step": 10, "seconds": 1.0, **vars(metrics)}
    write(folder / method / f"seed{seed}", result(spec=spec, final=metrics, best=metrics, **changes), [row])


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The same four runs, made twice."""
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        for method, losses in LOSSES.items():
            for seed, loss in enumerate(losses):
                made(folder, method, seed, loss)
    return folders


def said(pair: tuple[Path, Path], tolerance: float | None = None) -> tuple[bool, list[str]]:
    lines: list[str] = []
    return compare(*pair, lines.append, tolerance), lines


def test_times_memory_and_provenance_are_no_difference(pair: tuple[Path, Path]) -> None:
    made(pair[1], "cpmlho", 1, 0.3, train_seconds=9.0, peak_memory_mb=1.0, numerics=7, git_commit="f00d")
    assert said(pair) == (True, ["4 runs in both folders: 4 identical, 0 different; 0 in one only"])


@pytest.mark.parametrize(("tolerance", "agree"), [(None, False), (1e-4, False), (1.0, True)])
def test_a_late_digit_is_a_difference_unless_it_is_within_the_tolerance(
    pair: tuple[Path, Path], tolerance: float | None, agree: bool
) -> None:
    made(pair[1], "cpmlho", 1, 0.3001)
    equal, lines = said(pair, tolerance)
    assert equal == agree
    assert lines[:2] == [
        "cpmlho/seed1: differs; final validation loss 0.300000 and 0.300100",
        "4 runs in both folders: 3 identical, 1 different; 0 in one only",
    ]
    assert "0.00707 standard deviations over seeds (mnist/cpmlho/seed1, val_loss)" in lines[2]


def test_a_difference_in_a_table_alone_is_found(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "cpmlho" / "seed1" / "planes.csv"
    for folder, g in zip(pair, (2.5, 2.5000000001), strict=True):
        row = f"1,10,1,{g},0.1,0.5,0.25"
        (folder / "cpmlho" / "seed1" / path.name).write_text(f"epoch,step,plane,g,phi,mu,gradient_share\n{row}\n")
    assert not said(pair)[0]


def test_diverged_runs_are_equal_to_each_other(pair: tuple[Path, Path]) -> None:
    for folder in pair:
        made(folder, "cpmlho", 0, math.nan, status="diverged", diverged_by="loss")
    assert said(pair)[0]


def test_runs_in_one_folder_only_are_counted_and_none_in_both_is_an_error(pair: tuple[Path, Path]) -> None:
    *most, last = sorted(pair[1].rglob(RESULT))
    for path in most:
        path.unlink()
    assert said(pair) == (True, ["1 runs in both folders: 1 identical, 0 different; 3 in one only"])
    last.unlink()
    with pytest.raises(ResultError, match="no run lies at the same place"):
        said(pair)


def test_an_edited_result_is_named(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "cpmlho" / "seed1" / RESULT
    content = json.loads(path.read_text())
    content["final"]["val_loss"] = 0.0001
    path.write_text(json.dumps(content))
    with pytest.raises(ResultError, match=rf"^{path}: .*final\.val_loss is 0\.0001, but {HISTORY} has 0\.3$"):
        said(pair)


# The unit


def finals(losses: Sequence[float], method: str = "cpmlho") -> dict[RunKey, dict[str, float]]:
    """Runs with these validation losses, by seed; all other metrics are equal."""
    return {
        RunKey("mnist", method, seed): {**dict.fromkeys(METRICS, 0.5), "val_loss": loss}
        for seed, loss in enumerate(losses)
    }


def apart(ours: dict[RunKey, dict[str, float]], theirs: dict[RunKey, dict[str, float]]) -> Agreement:
    found = agreement(ours, theirs)
    assert found is not None
    return found


def test_the_unit_is_the_standard_deviation_over_the_seeds_of_the_larger_set() -> None:
    found = apart(finals([1.0, 2.25, 3.0]), finals([0.0, 2.0, 4.0, 2.0, 2.0]))
    assert found.largest == pytest.approx(1 / math.sqrt(2))  # sqrt(8 / 4)
    assert found.where in ("mnist/cpmlho/seed0, val_loss", "mnist/cpmlho/seed2, val_loss")
    assert found.compared == 3


def test_each_method_has_its_own_unit() -> None:
    found = apart(
        finals([1.0, 2.0, 3.0]) | finals([10.0, 20.0, 30.0], "delta_stn"),
        finals([1.0, 2.0, 3.5]) | finals([10.0, 21.0, 30.0], "delta_stn"),
    )
    assert (found.where, found.compared) == ("mnist/cpmlho/seed2, val_loss", 6)


@pytest.mark.parametrize(
    ("ours", "theirs", "largest"),
    [
        ([1.0], [1.0], 0.0),
        ([1.0], [1.1], math.inf),  # one seed has no standard deviation
        ([math.nan, 1.0, 2.0], [math.nan, 1.0, 2.0], 0.0),
        ([math.nan, 1.0, 2.0], [0.0, 1.0, 2.0], math.inf),
    ],
)
def test_the_difference_of_few_seeds_and_of_diverged_runs(
    ours: list[float], theirs: list[float], largest: float
) -> None:
    assert apart(finals(ours), finals(theirs)).largest == largest


def test_without_a_run_in_both_sets_there_is_no_agreement() -> None:
    assert agreement(finals([1.0]), finals([1.0], "delta_stn")) is None
