"""The readings of CPMLHO beside each other, those that ran away, and the splits, on made-up runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from test_reporting import load, text, write

from cpmlho.study.files import write_text
from cpmlho.study.protocol import Protocol, RunKey
from cpmlho.study.report.render import markdown
from cpmlho.study.report.tables.divergence import joined
from cpmlho.study.report.tables.multiverse import TABLE, sides
from cpmlho.study.report.write import study_of, write_tables
from cpmlho.study.results import PLANES, run_dir, to_csv

READINGS = {
    "cpmlho_stn": {"base": "cpmlho", "settings": {"response": "stn"}},
    "cpmlho_theta_10": {"base": "cpmlho", "settings": {"theta": 10.0}},
    "cpmlho_late": {"base": "cpmlho", "start": {"dropout0": 0.4}},
    "cpmlho_long": {"base": "cpmlho", "epochs": 30},
    "cpmlho_momentum": {"base": "cpmlho", "epochs": 1, "training": {"momentum": 0.9}},
}
METHODS = ["delta_stn", "stn", "cpmlho"]
ELSEWHERE = {"processor": "Z80"}


def made(protocol: Protocol, method: str, losses: list[float], g: list[float] | None = None, **changes: Any) -> None:
    """Runs of MNIST, one per seed, with the distance that the planes bound at the end of each epoch."""
    for seed, loss in enumerate(losses):
        key = RunKey("mnist", method, seed)
        write(protocol, key, loss, **changes)
        if g:
            whole = {"plane": 1, "phi": 0.0, "mu": 0.5, "gradient_share": 0.0}
            rows = [{"epoch": i, "step": i, "g": value, **whole} for i, value in enumerate(g, 1)]
            write_text(run_dir(protocol.results_dir, key) / PLANES, to_csv(rows))


def of(tmp_path: Path, **run: Any) -> Protocol:
    variants = [*READINGS, "cpmlho_cuts_only"]
    asked = {"datasets": ["mnist"], "methods": METHODS, "variants": variants, "seeds": [0, 1, 2]}
    return load(tmp_path, run={**asked, **run}, variants=READINGS)


def test_each_reading_is_held_against_delta_stn_and_against_itself_without_its_parts(tmp_path: Path) -> None:
    protocol = of(tmp_path)
    made(protocol, "delta_stn", [0.30, 0.31, 0.32])
    made(protocol, "stn", [0.20, 0.22, 0.24])
    made(protocol, "cpmlho", [0.29, 0.31, 0.33], [10.0, 9.0, 7.9])
    made(protocol, "cpmlho_stn", [0.25, 0.26, 0.27], [10.0, 8.1])
    made(protocol, "cpmlho_theta_10", [math.nan] * 3, [10.0, 15.1, 5.0], status="diverged")
    for name in ("cpmlho_cuts_only", "cpmlho_late", "cpmlho_long"):  # an ablation, another start, another budget
        made(protocol, name, [0.1, 0.1, 0.1], [10.0, 5.0])
    made(protocol, "cpmlho_momentum", [0.1, 0.1, 0.1], [10.0, 5.0])
    rows = study_of(protocol).table("multiverse")
    assert list(rows["specification"]) == ["cpmlho_stn", "cpmlho", "cpmlho_theta_10", "cpmlho_momentum"]
    assert list(rows["comparator"]) == ["stn", "delta_stn", "delta_stn", ""]  # none is run with momentum
    assert list(rows["difference_mean"][:2]) == pytest.approx([-0.05, 0.0])
    assert list(rows["own_mean"][:2]) == pytest.approx([0.04, 0.0])
    assert list(rows["g_ratio"][:2]) == pytest.approx([0.81, 0.79])
    assert list(rows["admissible"]) == [False, True, False, True]
    assert list(rows["diverged"]) == [0, 0, 3, 0]
    assert [list(each) for each in sides(rows)] == [[True, *[False] * 3], [False] * 4, [True, *[False] * 3]]


def test_a_specification_with_warm_up_is_compared_with_delta_stn_with_warm_up(tmp_path: Path) -> None:
    warm = {name: {"base": name, "settings": {"warm_up": 1}} for name in ("cpmlho", "delta_stn")}
    variants = {f"{name}_warm": variant for name, variant in warm.items()}
    run = {"datasets": ["mnist"], "methods": ["delta_stn", "cpmlho"], "variants": [*variants], "seeds": [0, 1, 2]}
    protocol = load(tmp_path, run=run, variants=variants)
    for method, loss in (("delta_stn", 0.3), ("delta_stn_warm", 0.4), ("cpmlho", 0.31), ("cpmlho_warm", 0.42)):
        made(protocol, method, [loss, loss + 0.01, loss - 0.01])
    rows = study_of(protocol).table("multiverse").set_index("specification")
    assert rows.loc["cpmlho_warm", "difference_mean"] == pytest.approx(0.02)
    assert rows.loc["cpmlho", "difference_mean"] == pytest.approx(0.01)


def test_g_must_fall_in_every_layer(tmp_path: Path) -> None:
    """Rows of several layers follow each other: the last over the first would compare two layers."""
    protocol = of(tmp_path)
    made(protocol, "delta_stn", [0.30, 0.31, 0.32])
    made(protocol, "cpmlho", [0.29, 0.31, 0.33])
    whole = {"plane": 1, "phi": 0.0, "mu": 0.5, "gradient_share": 0.0}
    layers = [(1, 1, 10.0), (1, 2, 1.0), (2, 1, 9.0), (2, 2, 0.1)]
    rows = [{"epoch": epoch, "step": epoch, "g": g, **whole, "layer": layer} for epoch, layer, g in layers]
    for seed in range(3):
        write_text(run_dir(protocol.results_dir, RunKey("mnist", "cpmlho", seed)) / PLANES, to_csv(rows))
    (row,) = study_of(protocol).table("multiverse").itertuples()
    assert (row.g_ratio, row.admissible) == (pytest.approx(0.9), False)


def test_whether_planes_brought_g_down_is_not_known_after_one_epoch(tmp_path: Path) -> None:
    protocol = of(tmp_path)
    made(protocol, "delta_stn", [0.30, 0.31, 0.32])
    made(protocol, "cpmlho", [0.29, 0.31, 0.33], [10.0])
    study = study_of(protocol)
    rows = study.table("multiverse")
    assert rows["g_ratio"].isna().all()
    assert not rows["admissible"].any()
    assert "| – | 0 | not known | 3 |" in markdown(TABLE.view(study, rows))


def test_runs_of_other_processors_are_flagged_where_they_are_compared(tmp_path: Path) -> None:
    protocol = of(tmp_path)
    made(protocol, "delta_stn", [0.30, 0.31, 0.32])
    made(protocol, "cpmlho", [0.29, 0.30, 0.31])
    made(protocol, "cpmlho_stn", [0.25, 0.26, 0.27])
    write(protocol, RunKey("mnist", "cpmlho_late", 0), 0.3, environment=ELSEWHERE)  # no specification: not compared
    write_tables(protocol)
    assert "Caution" not in text(protocol, "tables/multiverse.md")
    write(protocol, RunKey("mnist", "stn", 0), 0.3, environment=ELSEWHERE)  # the own baseline of one
    write_tables(protocol)
    assert "the runs differ in processor: Z80 (1 runs), not recorded (9 runs)" in text(protocol, "tables/multiverse.md")


def test_divergence_is_counted_by_processor_and_across_protocols(tmp_path: Path) -> None:
    protocol = of(tmp_path / "one", methods=["delta_stn", "cpmlho"], variants=[])
    made(protocol, "delta_stn", [0.3, 0.3, 0.3])
    made(protocol, "cpmlho", [0.3, 0.3, 0.3])
    write(protocol, RunKey("mnist", "cpmlho", 2), math.nan, status="diverged")
    named = {"cpmlho_again": {"base": "cpmlho"}}
    other = load(
        tmp_path / "two", run={"datasets": ["mnist"], "methods": ["fixed"], "variants": [*named]}, variants=named
    )
    made(other, "cpmlho_again", [math.nan, math.nan, 0.3], status="diverged", environment=ELSEWHERE)
    both = joined(*(study_of(each).table("divergence") for each in (protocol, other)))
    found = both[["method", "processor", "diverged", "runs"]].itertuples(index=False, name=None)
    assert list(found) == [
        ("delta_stn", "not recorded", 0, 3),
        ("cpmlho", "not recorded", 1, 3),
        ("cpmlho", "Z80", 3, 3),
    ]


def test_splits_are_shown_beside_the_papers_once_they_are_run(tmp_path: Path) -> None:
    names = ["split_random_fixed", "split_random_cpmlho"]
    variants = {"split_random_fixed": {"base": "fixed"}, "split_random_cpmlho": {"base": "cpmlho"}}
    run = {"datasets": ["mnist"], "methods": ["fixed", "cpmlho"], "variants": names, "seeds": [0, 1, 2]}
    protocol = load(tmp_path, run=run, variants=variants)
    made(protocol, "fixed", [0.3, 0.3, 0.3])
    made(protocol, "cpmlho", [0.31, 0.32, 0.33])
    assert study_of(protocol).table("splits").empty
    made(protocol, "split_random_fixed", [0.2, 0.3, 0.4])
    made(protocol, "split_random_cpmlho", [0.2, 0.29, 0.38])
    rows = study_of(protocol).table("splits")
    assert list(rows["other"]) == ["fixed"]
    assert rows["last_difference_mean"][0] == pytest.approx(0.02)
    assert rows["random_difference_mean"][0] == rows["random_test_mean"][0] == pytest.approx(-0.01)
    assert list(rows.loc[0, ["last_sd", "random_sd"]]) == pytest.approx([0.0, 0.1])
    assert list(rows.loc[0, ["last_difference_n_seeds", "random_difference_n_seeds"]]) == [3, 3]
    write(protocol, RunKey("mnist", "split_random_fixed", 0), 0.2, environment=ELSEWHERE)
    write_tables(protocol)
    assert "the runs differ in processor: Z80 (1 runs), not recorded (11 runs)" in text(protocol, "tables/splits.md")
