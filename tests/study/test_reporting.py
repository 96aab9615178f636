"""The reporting half, on made-up runs written through the contract's own writer."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpmlho.study import protocol as config
from cpmlho.study.events import Metrics
from cpmlho.study.numerics import NUMERICS
from cpmlho.study.protocol import Protocol, RunKey
from cpmlho.study.report import frame, stats
from cpmlho.study.report.cautions import cautions
from cpmlho.study.report.figures import KINDS, made_by
from cpmlho.study.report.paper import paper_numbers
from cpmlho.study.report.render import interval
from cpmlho.study.report.render import number as printed
from cpmlho.study.report.tables import TABLES
from cpmlho.study.report.write import write_figures, write_page, write_tables
from cpmlho.study.results import HISTORY, HYPERPARAMETERS, RESULT, ResultError, RunResult, run_dir, write_run

ROOT = Path(__file__).parents[2]
# 97.5 % quantiles of Student's t by number of seeds: in closed form for 1 and 2 degrees of freedom, tabulated for 4.
T = {2: math.tan(0.475 * math.pi), 3: 0.95 * math.sqrt(2 / 0.0975), 5: 2.7764451051977987}
NASTY = r"MADE UP: 50% of 1_000 & #1 {a} ~b ^c \d |e| *f*"

# By method and seed. CPMLHO is better than each other method on each seed, by nearly the same amount.
LOSSES = {
    "random_search": (0.31, 0.36, 0.34),
    "bayesian_optimization": (0.30, 0.35, 0.33),
    "delta_stn": (0.29, 0.34, 0.31),
    "cpmlho": (0.2801, 0.33, 0.3002),
}
PAPER = {
    1: {
        ("mnist", "random_search", "val_loss"): 0.183,
        ("mnist", "bayesian_optimization", "val_loss"): 0.182,
        ("mnist", "delta_stn", "val_loss"): 0.182,
        ("mnist", "cpmlho", "val_loss"): 0.180,
        ("fashionmnist", "random_search", "val_loss"): 0.548,
        ("fashionmnist", "bayesian_optimization", "val_loss"): 0.541,
        ("fashionmnist", "delta_stn", "val_loss"): 0.531,
        ("fashionmnist", "cpmlho", "val_loss"): 0.518,
    },
    2: {
        ("fashionmnist", method, name): value
        for method, values in {
            "delta_stn": (0.008, 0.062, 0.044, 0.86, 2.2),
            "cpmlho": (0.019, 0.149, 0.057, 0.73, 3.3),
        }.items()
        for name, value in zip(
            ("dropout0", "dropout1", "dropout2", "cutout_holes", "cutout_length"), values, strict=True
        )
    },
    3: {
        ("mnist", "delta_stn", "val_acc"): 0.946,
        ("mnist", "delta_stn", "test_acc"): 0.941,
        ("fashionmnist", "delta_stn", "val_acc"): 0.809,
        ("fashionmnist", "delta_stn", "test_acc"): 0.798,
    },
}


TEN = {"random_search": {"trials": 10}, "bayesian_optimization": {"trials": 10, "initial_trials": 5}}


def load(folder: Path, **overrides: Any) -> Protocol:
    return config.load([ROOT / "config.yaml"], {"results_dir": str(folder), "note": "", "methods": TEN, **overrides})


def write(
    protocol: Protocol,
    key: RunKey,
    loss: float,
    status: str = "done",
    spec: dict[str, Any] | None = None,
    **changes: Any,
) -> None:
    """One made-up run; accuracies are 1 - loss (validation) and 0.9 - loss (test)."""
    resolved = protocol.resolve(key).model_copy(update=spec or {})
    metrics = Metrics(val_loss=loss, val_acc=1 - loss, test_loss=loss + 0.1, test_acc=0.9 - loss)
    values = {name: loss * (i + 1) for i, name in enumerate(resolved.data.hyperparameters)}
    rows = [{"update": u, "step": 5 * u} | {name: v / (2 + 2 * u) for name, v in values.items()} for u in range(6)]
    content = {
        **{"spec": resolved, "status": status, "final": metrics, "best": metrics, "hyperparameters": values},
        **{
            "steps": 30,
            "train_seconds": 2.0,
            "train_cpu_seconds": 1.5,
            "evaluation_seconds": 0.5,
            "total_seconds": 3.0,
            "peak_memory_mb": 100.0,
        },
        **{
            "device": "cpu",
            "precision": "float32",
            "versions": {},
            "git_commit": "c0ffee",
            "numerics": NUMERICS,
            "data_sha256": resolved.data.sha256,
        },
    }
    searches = resolved.algorithm in ("random_search", "bayesian_optimization")
    history = [{"epoch": e, "step": 10 * e, "seconds": float(e), **asdict(metrics)} for e in (1, 2, 3)]
    tables = {HISTORY: history} if searches else {HISTORY: history, HYPERPARAMETERS: rows}
    write_run(run_dir(protocol.results_dir, key), RunResult(**(content | changes)), tables)


def fill(protocol: Protocol, skip: tuple[RunKey, ...] = ()) -> Protocol:
    """All runs but those in `skip`; FashionMNIST's losses are MNIST's plus 0.2."""
    for key in protocol.keys():  # noqa: SIM118
        losses = LOSSES.get(key.method, LOSSES["cpmlho"])
        if key not in skip:
            write(protocol, key, losses[key.seed] + (0.2 if key.dataset == "fashionmnist" else 0.0))
    return protocol


def table(protocol: Protocol, name: str) -> list[dict[str, str]]:
    with (Path(protocol.results_dir) / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def text(protocol: Protocol, name: str) -> str:
    return (Path(protocol.results_dir) / name).read_text(encoding="utf-8")


def one(rows: list[dict[str, str]], **where: str) -> dict[str, str]:
    (row,) = [row for row in rows if all(row[name] == value for name, value in where.items())]
    return row


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    """Everything ran; tables and figures are written."""
    protocol = fill(load(tmp_path_factory.mktemp("full"), note=NASTY))
    write_tables(protocol)
    write_figures(protocol)
    write_page(protocol)
    return protocol


@pytest.fixture(scope="module")
def holes(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    """Of MNIST, CPMLHO's seed 2 diverged, Delta-STN's seed 0 is missing, random search never ran."""
    gone = RunKey("mnist", "delta_stn", 0), *(RunKey("mnist", "random_search", seed) for seed in range(3))
    protocol = fill(load(tmp_path_factory.mktemp("holes")), skip=gone)
    write(protocol, RunKey("mnist", "cpmlho", 2), math.nan, status="diverged")
    write_tables(protocol)
    write_figures(protocol)
    write_page(protocol)
    return protocol


# --- statistics -----------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3))
def test_interval_of_three_is_student_t(values: list[float]) -> None:
    summary = stats.summarise(values)
    half = T[3] * statistics.stdev(values) / math.sqrt(3)
    assert summary.n_seeds == 3
    assert summary.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert summary.ci_low == pytest.approx(statistics.fmean(values) - half, abs=1e-7)
    assert summary.ci_high == pytest.approx(statistics.fmean(values) + half, abs=1e-7)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9), st.floats(-1e3, 1e3))
def test_interval_moves_with_its_values(values: list[float], shift: float) -> None:
    here, there = stats.summarise(values), stats.summarise(value + shift for value in values)
    assert there.ci_low == pytest.approx(here.ci_low + shift, abs=1e-6)
    assert there.ci_high == pytest.approx(here.ci_high + shift, abs=1e-6)
    assert here.ci_high - here.mean == pytest.approx(here.mean - here.ci_low, abs=1e-9)


@pytest.mark.parametrize("n", T)
def test_half_width_has_the_tabulated_quantile(n: int) -> None:
    assert stats.half_width(n) == pytest.approx(T[n] / math.sqrt(n), rel=1e-12)


def test_one_seed_has_no_spread_and_none_has_no_mean() -> None:
    single, nothing = stats.summarise([0.5]), stats.summarise([])
    assert (single.mean, single.n_seeds, nothing.n_seeds) == (0.5, 1, 0)
    assert all(math.isnan(value) for value in (*single[1:4], *nothing[:4]))


def runs_of(**losses: tuple[float, ...]) -> pd.DataFrame:
    rows = [(m, s, "done", v) for m, values in losses.items() for s, v in enumerate(values)]
    return pd.DataFrame(rows, columns=["method", "seed", "status", "x"])


@pytest.mark.parametrize(
    ("values", "lowest", "best"),
    [
        ({"a": (0.1, 0.5, 0.9), "b": (0.2, 0.6, 1.01)}, True, "a"),  # seeds differ a lot, the pairs do not
        ({"a": (0.1, 0.5, 0.9), "b": (0.2, 0.6, 1.01)}, False, "b"),
        ({"a": (0.1, 0.5, 0.9), "b": (0.6, 0.2, 1.0)}, True, None),
        ({"a": (0.1, 0.5, 0.9), "b": (0.2, 0.6, 1.01), "c": (0.19, 0.2, 1.3)}, True, None),  # c is second, not b
        ({"a": (0.1, 0.5), "b": (0.1, 0.5)}, True, None),
        ({"a": (0.1,), "b": (0.9,)}, True, None),
        ({"a": (0.1, 0.1, 0.1)}, True, None),
    ],
)
def test_bold_needs_a_paired_interval_without_zero(values: dict[str, Any], lowest: bool, best: str | None) -> None:
    assert stats.significant_best(runs_of(**values), "x", lowest=lowest) == best


def test_bold_needs_the_interval_on_the_better_side() -> None:
    runs = runs_of(a=(0.1, 0.5, 0.9), b=(0.0, 0.4, 0.81))
    runs.loc[len(runs)] = ["b", 3, "done", 9.0]  # makes b's mean the worse, though it wins on every common seed
    assert stats.significant_best(runs, "x", lowest=True) is None


def test_paired_uses_common_seeds_only() -> None:
    runs = runs_of(a=(0.1, 0.5, 0.9), b=(0.3, 0.6, 5.0))
    runs.loc[(runs["method"] == "b") & (runs["seed"] == 2), "status"] = "diverged"
    difference = stats.paired(frame.finished(runs), "a", "b", "x")
    assert difference.n_seeds == 2
    assert difference.mean == pytest.approx(-0.15)
    assert difference.ci_high == pytest.approx(-0.15 + T[2] * statistics.stdev([-0.2, -0.1]) / math.sqrt(2))


# --- runs -----------------------------------------------------------------------------------------------------------


def test_runs_has_a_row_for_every_key(holes: Protocol) -> None:
    rows = table(holes, "tables/runs.csv")
    assert [(r["dataset"], r["method"], int(r["seed"])) for r in rows] == [tuple(key) for key in holes.keys()]  # noqa: SIM118
    missing = one(rows, dataset="mnist", method="delta_stn", seed="0")
    assert (missing["status"], missing["final_val_loss"], missing["epochs"]) == ("missing", "", "7")
    assert one(rows, dataset="mnist", method="cpmlho", seed="2")["status"] == "diverged"
    run = one(rows, dataset="fashionmnist", method="random_search", seed="1")
    assert (run["trials"], run["steps"], run["algorithm"], run["network"]) == ("10", "30", "random_search", "cnn")
    assert float(run["final_val_loss"]) == 0.36 + 0.2  # unrounded
    assert float(run["hyperparameter_cutout_holes"]) == (0.36 + 0.2) * 5
    assert one(rows, dataset="mnist", method="cpmlho_dropout0_0.5", seed="1")["algorithm"] == "cpmlho"


def test_damaged_result_is_named_and_leaves_the_tables(tmp_path: Path) -> None:
    protocol = fill(load(tmp_path))
    write_tables(protocol)
    before = text(protocol, "tables/table1.csv")
    damaged = run_dir(tmp_path, RunKey("mnist", "cpmlho", 1)) / RESULT
    damaged.write_text("{", encoding="utf-8")
    with pytest.raises(ResultError, match=re.escape(str(damaged))):
        write_tables(protocol)
    assert text(protocol, "tables/table1.csv") == before


def test_like_runs_are_not_flagged(full: Protocol) -> None:
    moved = full.model_copy(update={"data": full.data.model_copy(update={"dir": "elsewhere"})})
    assert cautions(frame.read_runs(moved)) == []
    assert list(frame.read_runs(moved)["config_digest"]) == list(frame.read_runs(full)["config_digest"])
    assert cautions(frame.read_runs(full)) == []
    assert "Caution" not in text(full, "tables/table1.md")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device": "cuda"}, "mnist: the runs differ in device: cpu (5 runs), cuda (1 runs)"),
        (
            {"environment": {"processor": "Z80"}},
            "mnist: the runs differ in processor: Z80 (1 runs), not recorded (5 runs)",
        ),
        ({"data_sha256": {"file": "0"}}, "mnist: the runs differ in data checksums"),
        ({"precision": "bfloat16"}, "mnist: the runs differ in precision: bfloat16 (1 runs), float32 (5 runs)"),
        ({"spec": {"valid_fraction": 0.2}}, "mnist: made with other settings than the protocol's: cpmlho/seed1"),
    ],
)
def test_mixtures_are_flagged_under_the_tables(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    run = {"methods": ["delta_stn", "cpmlho"], "variants": []}
    protocol = fill(load(tmp_path, run=run))
    write(protocol, RunKey("mnist", "cpmlho", 1), 0.3, **changes)
    write_tables(protocol)
    for number in (1, 3):
        page = text(protocol, f"tables/table{number}.md")
        assert said in page.split(" --- |\n")[1].replace("\\_", "_")
        assert "Caution" in text(protocol, f"tables/table{number}.tex")
    assert "Caution" not in text(protocol, "tables/table2.md")  # it compares runs on FashionMNIST alone


def test_many_runs_with_other_settings_are_counted_by_method(tmp_path: Path) -> None:
    protocol = fill(load(tmp_path, run={"datasets": ["mnist"], "variants": []}))
    for method, seeds in (("cpmlho", (1, 2)), ("delta_stn", (0, 1))):
        for seed in seeds:
            write(protocol, RunKey("mnist", method, seed), 0.3, spec={"valid_fraction": 0.2})
    said = "mnist: made with other settings than the protocol's: 4 of 12 runs, of delta_stn, cpmlho"
    assert cautions(frame.read_runs(protocol)) == [said]


@pytest.mark.parametrize(
    ("value", "decimals", "sign", "expected"),
    [
        (0.12345, 4, "", "0.1235"),
        (-0.0123, 4, "+", "−0.0123"),
        (-0.00002, 4, "+", "−0.00002"),
        (-1e-9, 4, "+", "0.000000"),
        (0.0, 4, "+", "0.0000"),
        (math.nan, 4, "+", "–"),
    ],
)
def test_a_number_has_a_minus_sign_and_is_never_minus_zero(
    value: float, decimals: int, sign: str, expected: str
) -> None:
    assert printed(value, decimals, sign) == expected


def test_an_interval_is_in_brackets() -> None:
    assert interval(-0.0030, 0.0006) == "[−0.0030, +0.0006]"
    assert interval(math.nan, math.nan) == "–"


# --- tables ---------------------------------------------------------------------------------------------------------


def test_columns_are_the_contract(full: Protocol) -> None:
    header = {n: text(full, f"tables/table{n}.csv").splitlines()[0] for n in (1, 2, 3)}
    assert header[1] == "dataset,network,method,paper,mean,std,ci_low,ci_high,n_seeds"
    assert header[2] == "method,hyperparameter,paper,mean,std,n_seeds"
    assert header[3] == "dataset,method,split,paper,mean,std,ci_low,ci_high,n_seeds"


def test_numbers_equal_an_independent_computation(full: Protocol) -> None:
    first, second, third = (table(full, f"tables/table{n}.csv") for n in (1, 2, 3))
    assert (len(first), len(second), len(third)) == (8, 20, 16)
    for method, losses in LOSSES.items():
        mean, std = statistics.fmean(losses), statistics.stdev(losses)
        half = T[3] * std / math.sqrt(3)
        row = one(first, dataset="mnist", method=method)
        assert [float(row[name]) for name in ("mean", "std", "ci_low", "ci_high", "n_seeds")] == pytest.approx(
            [mean, std, mean - half, mean + half, 3], rel=1e-12
        )
        row = one(second, method=method, hyperparameter="cutout_length")  # the fourth that is tuned
        assert [float(row[name]) for name in ("mean", "std")] == pytest.approx([4 * (mean + 0.2), 4 * std], rel=1e-12)
        row = one(third, dataset="fashionmnist", method=method, split="test")
        assert [float(row[name]) for name in ("mean", "std", "ci_low", "ci_high")] == pytest.approx(
            [0.7 - mean, std, 0.7 - mean - half, 0.7 - mean + half], rel=1e-12
        )


def test_paper_numbers_are_those_of_the_text(full: Protocol) -> None:
    for number, expected in PAPER.items():
        assert {key: float(value) for key, value in paper_numbers(number).items()} == expected
        page, tex = text(full, f"tables/table{number}.md"), text(full, f"tables/table{number}.tex")
        for value in paper_numbers(number).values():
            assert f"({value})" in page
            assert f"({value})" in tex
    written = [float(row["paper"]) for row in table(full, "tables/table3.csv") if row["paper"]]
    assert written == [0.946, 0.941, 0.809, 0.798]  # no other row of Table 3 is in the text


def test_markdown_has_the_papers_layout(full: Protocol) -> None:
    lines = {n: text(full, f"tables/table{n}.md").splitlines() for n in (1, 2, 3)}
    assert lines[1][2] == "| Dataset | Network | RS | BO | Δ-STN | CPMLHO |"
    assert lines[1][4].startswith("| MNIST | MLP | 0.337 ± 0.025 (0.183) | 0.327 ± 0.025 (0.182) | ")
    assert lines[2][2] == "| Method | Dropout0 | Dropout1 | Dropout2 | Cutout holes | Cutout length |"
    assert [line.split(" | ")[0] for line in lines[2][4:]] == ["| RS", "| BO", "| Δ-STN", "| CPMLHO"]
    assert lines[2][6].endswith("| 2.567 ± 0.126 (0.86) | 2.053 ± 0.101 (2.2) |")
    assert lines[3][2].endswith("| MNIST Val acc | MNIST Test acc | FashionMNIST Val acc | FashionMNIST Test acc |")
    for number, width in ((1, 6), (2, 6), (3, 5)):
        cells = [line for line in lines[number][2:] if line.startswith("|")]
        main = cells[: {1: 4, 2: 6, 3: 6}[number]]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in main} == {width + 1}


def test_significant_best_is_bold(full: Protocol) -> None:
    page = text(full, "tables/table1.md")
    assert "**0.303 ± 0.025** (0.180)" in page
    assert page.count("** (") == 2  # CPMLHO on each dataset
    assert r"\textbf{0.303 $\pm$ 0.025} (0.180)" in text(full, "tables/table1.tex")
    assert text(full, "tables/table3.md").count("** (") == 4
    assert text(full, "tables/table2.md").count("** (") == 0


def test_differences_are_paired_and_say_how_small_a_difference_was_detectable(full: Protocol, holes: Protocol) -> None:
    row = one(table(full, "tables/differences.csv"), dataset="mnist", method="cpmlho", other="delta_stn")
    apart = [a - b for a, b in zip(LOSSES["cpmlho"], LOSSES["delta_stn"], strict=True)]
    mean, error = statistics.fmean(apart), statistics.stdev(apart) / math.sqrt(3)
    found = [float(row[f"difference_{name}"]) for name in ("mean", "ci_low", "ci_high", "n_seeds")]
    assert found == pytest.approx([mean, mean - T[3] * error, mean + T[3] * error, 3])
    t80 = 0.6 * math.sqrt(2 / (1 - 0.6**2))  # the 80 % quantile with two degrees of freedom, in closed form
    assert float(row["detectable"]) == pytest.approx((T[3] + t80) * error)
    assert (float(row["paper_difference"]), row["won"], row["lost"]) == (pytest.approx(-0.002), "3", "0")
    partial = one(
        table(holes, "tables/differences.csv"), dataset="mnist", method="cpmlho", other="bayesian_optimization"
    )
    assert (partial["difference_n_seeds"], partial["won"], partial["lost"]) == ("2", "2", "1")  # one seed diverged


def test_unclear_best_is_not_bold(tmp_path: Path) -> None:
    protocol = fill(load(tmp_path, run={"datasets": ["mnist"], "variants": []}))
    write(protocol, RunKey("mnist", "cpmlho", 0), 0.2)  # a lower mean still, but on one seed alone
    write_tables(protocol)
    assert "** (" not in text(protocol, "tables/table1.md")


def test_note_stands_first_and_bold_on_every_table(full: Protocol, holes: Protocol) -> None:
    for number in (1, 2, 3):
        assert text(full, f"tables/table{number}.md").startswith("**MADE UP: 50% of 1\\_000 & #1")
        assert r"\caption{\textbf{MADE UP: 50\% of 1\_000 \& \#1 \{a\}" in text(full, f"tables/table{number}.tex")
        assert text(holes, f"tables/table{number}.md").startswith(f"Table {number}.")


def test_missing_and_diverged_runs_are_marked_and_left_out(holes: Protocol) -> None:
    rows = table(holes, "tables/table1.csv")
    ours = one(rows, dataset="mnist", method="cpmlho")
    assert (ours["n_seeds"], float(ours["mean"])) == ("2", pytest.approx((0.2801 + 0.33) / 2))
    assert float(ours["ci_high"]) - float(ours["mean"]) == pytest.approx(T[2] * (0.33 - 0.2801) / 2)
    nothing = one(rows, dataset="mnist", method="random_search")
    assert (nothing["n_seeds"], nothing["mean"], nothing["ci_low"], nothing["paper"]) == ("0", "", "", "0.183")
    for kind, minus in (("md", "–"), ("tex", "--")):
        page = text(holes, f"tables/table1.{kind}")
        assert f"{minus} (0.183) [n=0/3, 3 missing]" in page
        assert "(0.182) [n=2/3, 1 missing]" in page
        assert "(0.180) [n=2/3, 1 diverged]" in page
    assert "[n=" not in text(holes, "tables/table2.md")  # FashionMNIST is whole
    assert "[n=2/3, 1 diverged]" in text(holes, "tables/table3.md")


@pytest.mark.slow
def test_one_seed_and_one_dataset(tmp_path: Path) -> None:
    protocol = fill(load(tmp_path, run={"datasets": ["mnist"], "seeds": [1]}))
    write_tables(protocol)
    write_figures(protocol)
    row = one(table(protocol, "tables/table1.csv"), method="cpmlho")
    assert [row[name] for name in ("mean", "std", "ci_low", "ci_high", "n_seeds")] == ["0.33", "", "", "", "1"]
    page = text(protocol, "tables/table1.md")
    assert "| MNIST | MLP | 0.360 (0.183) | 0.350 (0.182) | 0.340 (0.182) | 0.330 (0.180) |" in page
    assert len(text(protocol, "tables/table2.csv").splitlines()) == 1
    assert "runs no such dataset" in text(protocol, "tables/table2.md")


def test_latex_is_balanced_and_escaped(full: Protocol, holes: Protocol) -> None:
    for protocol in (full, holes):
        for number in (1, 2, 3):
            tex = text(protocol, f"tables/table{number}.tex")
            bare = re.sub(r"\\[&%$#_{}]", "", tex)
            assert tex.isascii()
            assert not set(bare) & set("%#_^~|" if protocol is holes else "%#_^~")
            assert bare.count("{") == bare.count("}")
            assert bare.count("$") % 2 == 0
            begun, ended = re.findall(r"\\begin{(\w+)}", tex), re.findall(r"\\end{(\w+)}", tex)
            assert begun == ended[::-1] == ["table", "tabular"]
            (columns,) = re.findall(r"\\begin{tabular}{(l+)}", tex)
            body = [line for line in bare.splitlines() if line.endswith(r" \\")]
            assert len(body) == {1: 3, 2: 5, 3: 5}[number]
            assert {line.count("&") for line in body} == {len(columns) - 1}


# --- the whole ------------------------------------------------------------------------------------------------------


def run_python(code: str, cwd: Path, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    source = {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **source, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def outputs(folder: Path) -> list[Path]:
    return sorted([*folder.glob("tables/*"), *folder.glob("figures/*"), folder / "report.html"])


@pytest.mark.slow
def test_regenerated_files_have_the_same_bytes(full: Protocol, tmp_path: Path) -> None:
    """In another process, with other hashes and with a user's own matplotlib settings."""
    (tmp_path / "matplotlibrc").write_text(
        "font.size: 20\naxes.facecolor: red\nsavefig.bbox: tight\n", encoding="utf-8"
    )
    folder = Path(full.results_dir)
    paths = outputs(folder)
    assert len(paths) == sum(map(len, TABLES.values())) + len(made_by(full)) * len(KINDS) + 1 + 2  # and their checksums
    before = {path: path.read_bytes() for path in paths}
    for path in paths:
        path.unlink()
    code = (
        "from cpmlho.study import protocol as config; from pathlib import Path\n"
        "from cpmlho.study.report.write import write_figures, write_page, write_tables\n"
        f"over = {{'results_dir': {str(folder)!r}, 'note': {NASTY!r}, 'methods': {TEN!r}}}\n"
        f"p = config.load([Path({str(ROOT / 'config.yaml')!r})], over)\n"
        "write_tables(p); write_figures(p); write_page(p)"
    )
    run_python(code, tmp_path, PYTHONHASHSEED="7")
    assert outputs(folder) == paths
    assert [path.name for path in paths if path.read_bytes() != before[path]] == []


def test_a_variant_is_compared_with_its_base_over_common_seeds(tmp_path: Path) -> None:
    run = {"methods": ["delta_stn"], "variants": ["mine", "cpmlho_cuts_only"]}
    mine = {"base": "delta_stn", "precision": "bfloat16"}
    protocol = load(tmp_path, run=run, variants={"mine": mine})
    for seed, loss in enumerate((0.2, 0.3, 0.5)):
        write(protocol, RunKey("mnist", "delta_stn", seed), loss)
    for seed, loss in enumerate((0.21, 0.33)):
        write(protocol, RunKey("mnist", "mine", seed), loss, train_cpu_seconds=0.75)
    write(protocol, RunKey("mnist", "mine", 2), math.nan, status="diverged")
    write_tables(protocol)
    (row,) = table(protocol, "tables/variants.csv")  # of no other is there a base
    assert (row["dataset"], row["variant"], row["base"], row["n_seeds"]) == ("mnist", "mine", "delta_stn", "2")
    assert json.loads(row["changes"]) == {"precision": "bfloat16"}
    assert float(row["base_mean"]) == pytest.approx(0.25)
    assert float(row["base_std"]) == pytest.approx(statistics.stdev((0.2, 0.3)))
    assert float(row["difference"]) == pytest.approx(0.02)
    half = T[2] * statistics.stdev((0.01, 0.03)) / math.sqrt(2)
    assert (float(row["ci_low"]), float(row["ci_high"])) == pytest.approx((0.02 - half, 0.02 + half))
    assert float(row["time_ratio"]) == pytest.approx(0.5)
    page = text(protocol, "tables/variants.md")
    assert "| MNIST | mine | delta\\_stn | 0.2500 | 0.0707 | +0.0200 |" in page


def test_without_any_run_there_is_nothing_to_be_made(tmp_path: Path) -> None:
    protocol = load(tmp_path)
    with pytest.raises(ResultError, match=r"none of the 36 runs of the protocol is there; run them first: "):
        write_tables(protocol)
    assert not (tmp_path / "tables").exists()


@pytest.mark.parametrize("make", [write_figures, write_page])
def test_what_is_made_from_the_tables_says_which_are_missing(tmp_path: Path, make: Callable[[Protocol], str]) -> None:
    protocol = fill(load(tmp_path, run={"methods": ["delta_stn"], "variants": []}))
    with pytest.raises(ResultError, match=r"tables: no runs.csv, .*make the tables first: .*python -m cpmlho tables"):
        make(protocol)
    write_tables(protocol)
    other = load(tmp_path, run={"methods": ["delta_stn"], "variants": [], "seeds": [0]})
    with pytest.raises(ResultError, match=r"runs.csv: of other runs than the protocol's; make the tables again"):
        make(other)


@pytest.mark.slow
def test_the_page_needs_the_figures_and_each_verb_says_what_it_wrote(tmp_path: Path) -> None:
    protocol = fill(load(tmp_path, run={"methods": ["delta_stn", "cpmlho"], "variants": []}))
    assert write_tables(protocol).endswith("files from 12 of 12 runs")
    with pytest.raises(
        ResultError, match=r"no forest.svg, forest.csv; make the figures first: .*python -m cpmlho figures"
    ):
        write_page(protocol)
    figures = made_by(protocol)
    written = f"{tmp_path}/figures: {len(KINDS) * len(figures)} files, {', '.join(figures)}"
    assert write_figures(protocol) == written
    assert (
        write_page(protocol) == f"{tmp_path}/report.html: 12 of 12 runs, {len(TABLES)} tables, {len(figures)} figures"
    )


def test_a_table_along_a_run_that_is_missing_is_named(tmp_path: Path) -> None:
    protocol = fill(load(tmp_path, run={"methods": ["delta_stn", "cpmlho"], "variants": []}))
    path = run_dir(tmp_path, RunKey("mnist", "delta_stn", 1)) / HYPERPARAMETERS
    path.unlink()
    with pytest.raises(ResultError, match=re.escape(str(path))):
        write_tables(protocol)


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [["dropout0"], ["dropout1", "dropout2"]])
def test_tables_and_figures_are_of_whatever_is_tuned(tmp_path: Path, tuned: list[str]) -> None:
    protocol = load(tmp_path, run={"variants": []})
    datasets = {
        name: dataset.model_copy(update={"hyperparameters": {key: dataset.hyperparameters[key] for key in tuned}})
        for name, dataset in protocol.datasets.items()
    }
    protocol = fill(protocol.model_copy(update={"datasets": datasets}))
    write_tables(protocol)
    write_figures(protocol)
    write_page(protocol)
    assert {row["hyperparameter"] for row in table(protocol, "tables/table2.csv")} == set(tuned)
