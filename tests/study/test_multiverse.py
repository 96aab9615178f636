"""The readings of CPMLHO beside each other, those that ran away, and the splits, on made-up runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_reporting import load, text, write

from cpmlho.study.files import write_text
from cpmlho.study.protocol import Protocol, RunKey
from cpmlho.study.report.frame import Study
from cpmlho.study.report.render import markdown
from cpmlho.study.report.tables.multiverse import TABLE, sentence
from cpmlho.study.report.tables.splits import sentence as splits_sentence
from cpmlho.study.report.write import write_figures, write_page, write_tables
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


def made(protocol: Protocol, method: str, losses: list[float], g: list[float] | None = None) -> None:
    """Runs of MNIST, a seed each, with the way of the distance that the planes hold."""
    for seed, loss in enumerate(losses):
        key = RunKey("mnist", method, seed)
        write(protocol, key, loss)
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
    made(protocol, "cpmlho_theta_10", [0.1, 0.1, 0.1], [10.0, 15.1, 5.0])
    for name in ("cpmlho_cuts_only", "cpmlho_late", "cpmlho_long"):  # an ablation, another start, another budget
        made(protocol, name, [0.1, 0.1, 0.1], [10.0, 5.0])
    made(protocol, "cpmlho_momentum", [0.1, 0.1, 0.1], [10.0, 15.1, 5.0])
    rows = Study(protocol).table("multiverse")
    assert list(rows["specification"]) == ["cpmlho_stn", "cpmlho", "cpmlho_theta_10", "cpmlho_momentum"]
    assert list(rows["comparator"]) == ["stn", "delta_stn", "delta_stn", ""]  # none is run with momentum
    assert list(rows["difference_mean"][:2]) == pytest.approx([-0.05, 0.0])
    assert list(rows["own_mean"][:2]) == pytest.approx([0.04, 0.0])
    assert list(rows["g_ratio"][:2]) == pytest.approx([0.81, 0.79])
    assert list(rows["admissible"]) == [False, True, False, False]
    assert list(rows["diverged"]) == [0, 0, 3, 3]
    assert sentence("MNIST", rows) == (
        "MNIST: of 4 specifications 1 shows CPMLHO below Δ-STN and 0 below its own comparator; 2 diverged;"
        " of the 1 admissible 0 and 0."
    )


def test_whether_planes_brought_g_down_is_not_known_after_one_epoch(tmp_path: Path) -> None:
    protocol = of(tmp_path)
    made(protocol, "delta_stn", [0.30, 0.31, 0.32])
    made(protocol, "cpmlho", [0.29, 0.31, 0.33], [10.0])
    study = Study(protocol)
    rows = study.table("multiverse")
    assert rows["g_ratio"].isna().all()
    assert not rows["admissible"].any()
    assert "| – | 0 | not known | 3 |" in markdown(TABLE.view(study, rows))


def test_the_table_says_how_far_the_protocol_is_and_which_runs_are_unlike(tmp_path: Path) -> None:
    protocol = of(tmp_path, seeds=[0, 1, 2, 3])
    made(protocol, "delta_stn", [0.30, 0.31, 0.32])
    made(protocol, "cpmlho", [0.29, 0.30, 0.31], [10.0, 7.0])
    made(protocol, "cpmlho_stn", [0.25, 0.26, 0.27], [10.0, 8.1])
    made(protocol, "cpmlho_theta_10", [0.1], [10.0, 15.1, 5.0])
    write_tables(protocol)
    written = text(protocol, "tables/multiverse.md")
    assert "MNIST half done: 3 of 4 specifications, 7 of 16 runs of them." in written
    assert "Caution" not in written
    write(protocol, RunKey("mnist", "cpmlho_late", 0), 0.3, environment=ELSEWHERE)  # no reading, and not compared
    write_tables(protocol)
    assert "Caution" not in text(protocol, "tables/multiverse.md")
    write(protocol, RunKey("mnist", "stn", 0), 0.3, environment=ELSEWHERE)  # the own comparator of one
    write_tables(protocol)
    assert "different processors are compared: Z80 (1), not recorded (10)" in text(protocol, "tables/multiverse.md")


@pytest.mark.slow
def test_a_run_whose_penalty_ran_away_is_shown_and_in_no_mean(tmp_path: Path) -> None:
    protocol = of(tmp_path)
    for method in ("delta_stn", "cpmlho", "cpmlho_theta_10"):
        made(protocol, method, [0.3, 0.31, 0.32], [10.0, 14.9] if method == "cpmlho" else [10.0, 15.1, 2.0])
    write_tables(protocol)
    write_figures(protocol)
    write_page(protocol)
    runs = Study.written(protocol).runs.set_index(["method", "seed"])
    assert runs.loc[("cpmlho", 0), "status"] == "done"
    assert runs.loc[("cpmlho_theta_10", 0), "status"] == "diverged"
    assert runs.loc[("cpmlho_theta_10", 0), "g_ratio"] == pytest.approx(0.2)
    page = text(protocol, "tables/variants.md")
    assert "| MNIST | cpmlho\\_theta\\_10 | cpmlho | – | – | – | – | – | 0/3, 3 diverged | – |" in page
    assert "cpmlho_theta_10: 3 runs, mean validation loss – [n=0/3, 3 diverged]" in text(protocol, "report.html")


def test_splits_are_shown_beside_the_papers_once_they_are_run(tmp_path: Path) -> None:
    names = ["split_random_fixed", "split_random_cpmlho"]
    variants = {"split_random_fixed": {"base": "fixed"}, "split_random_cpmlho": {"base": "cpmlho"}}
    run = {"datasets": ["mnist"], "methods": ["fixed", "cpmlho"], "variants": names, "seeds": [0, 1, 2]}
    protocol = load(tmp_path, run=run, variants=variants)
    made(protocol, "fixed", [0.3, 0.3, 0.3])
    made(protocol, "cpmlho", [0.31, 0.32, 0.33])
    assert Study(protocol).table("splits").empty
    made(protocol, "split_random_fixed", [0.2, 0.3, 0.4])
    made(protocol, "split_random_cpmlho", [0.2, 0.29, 0.38])
    rows = Study(protocol).table("splits")
    assert list(rows["other"]) == ["fixed"]
    assert rows["last_difference_mean"][0] == pytest.approx(0.02)
    assert rows["random_difference_mean"][0] == rows["random_test_mean"][0] == pytest.approx(-0.01)
    assert list(rows.loc[0, ["last_sd", "random_sd"]]) == pytest.approx([0.0, 0.1])
    assert list(rows.loc[0, ["last_difference_n_seeds", "random_difference_n_seeds"]]) == [3, 3]
    write_tables(protocol)
    assert (
        "MNIST: 1 of 1 differences are on random splits what they are on the last part of the training file, below 0,"
        " above it or not told from it; on random splits 0 are below 0, and 0 above."
    ) in text(protocol, "tables/splits.md")
    write(protocol, RunKey("mnist", "split_random_fixed", 0), 0.2, environment=ELSEWHERE)
    write_tables(protocol)
    assert "different processors are compared: Z80 (1), not recorded (11)" in text(protocol, "tables/splits.md")
    made(protocol, "split_random_cpmlho", [0.19, 0.29, 0.39])
    rows = Study(protocol).table("splits")
    assert "MNIST: 0 of 1" in splits_sentence("MNIST", rows)
    assert "1 are below 0, and 0 above" in splits_sentence("MNIST", rows)
