"""Methods at the learning rate of equal training loss, on made-up runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_reporting import load, text, write

from cpmlho.study.protocol import Protocol, RunKey
from cpmlho.study.report.frame import Study
from cpmlho.study.report.write import write_tables

GRID = {
    "axes": {
        "at": {"half": {"training": {"learning_rate": 0.005}}, "twice": {"training": {"learning_rate": 0.02}}},
        "of": {"delta_stn": {"base": "delta_stn"}, "stn": {"base": "stn"}, "cpmlho": {"base": "cpmlho"}},
    }
}
RUN = {"datasets": ["mnist"], "methods": ["fixed", "delta_stn", "stn", "cpmlho"], "variants": [], "seeds": [0, 1, 2]}


def made(protocol: Protocol, method: str, train: list[float], valid: list[float]) -> None:
    for seed, (lower, loss) in enumerate(zip(train, valid, strict=True)):
        write(protocol, RunKey("mnist", method, seed), loss, train_loss=lower)


@pytest.fixture
def protocol(tmp_path: Path) -> Protocol:
    return load(tmp_path, run=RUN, grids={"rate": GRID})


def test_each_method_counts_at_the_rate_of_the_nearest_training_loss(protocol: Protocol) -> None:
    made(protocol, "fixed", [0.1, 0.1, 0.1], [0.1, 0.1, 0.1])
    made(protocol, "delta_stn", [0.20, 0.21, 0.22], [0.30, 0.31, 0.32])
    made(protocol, "rate_half_delta_stn", [0.40, 0.41, 0.42], [0.50, 0.51, 0.52])
    made(protocol, "rate_twice_delta_stn", [0.10, 0.11, 0.12], [0.20, 0.21, 0.22])
    made(protocol, "stn", [0.12, 0.13, 0.14], [0.20, 0.21, 0.22])
    made(protocol, "rate_half_stn", [0.21, 0.22, 0.23], [0.31, 0.33, 0.32])  # nearest, on the other side, and level
    made(protocol, "cpmlho", [0.30, 0.31, 0.32], [0.35, 0.36, 0.37])
    made(protocol, "rate_twice_cpmlho", [0.21, 0.22, 0.23], [0.29, 0.30, 0.31])  # nearest, and not near enough
    rows = Study(protocol).table("step_size").set_index("runs")
    assert list(rows.index[rows["nearest"]]) == ["delta_stn", "rate_half_stn", "rate_twice_cpmlho"]
    assert list(rows.index[rows["last"]]) == ["rate_twice_cpmlho"]
    assert list(rows["rate"]) == [0.005, 0.01, 0.02, 0.005, 0.01, 0.01, 0.02]
    assert rows.loc["rate_twice_cpmlho", "train_difference"] == pytest.approx(0.01)
    assert rows.loc["rate_half_stn", "difference_mean"] == pytest.approx(0.01)
    assert rows.loc["rate_half_stn", "difference_ci_low"] == pytest.approx(0.01 - 4.302653 * 0.01 / 3**0.5)
    assert rows.loc["rate_half_stn", "test_mean"] == pytest.approx(0.01)
    write_tables(protocol)
    first, every = text(protocol, "tables/step_size.md").split("Every rate that was run")
    assert "MNIST: at the learning rate of the nearest training loss, 1 of 2 comparisons end below Δ-STN's" in first
    assert "validation loss and 0 above it; for 1 of them a nearer rate may lie beyond" in first
    assert first.count("| MNIST |") == 2
    assert every.count("| MNIST |") == 7
    assert "Caution" not in first + every


@pytest.mark.slow
def test_a_rate_that_ran_on_another_processor_is_flagged_where_it_is_compared(protocol: Protocol) -> None:
    made(protocol, "delta_stn", [0.20, 0.21, 0.22], [0.30, 0.31, 0.32])
    made(protocol, "stn", [0.12, 0.13, 0.14], [0.20, 0.21, 0.22])
    made(protocol, "rate_half_stn", [0.21, 0.22, 0.23], [0.31, 0.33, 0.32])
    elsewhere = {"train_loss": 0.1, "environment": {"processor": "Z80"}}
    write(protocol, RunKey("mnist", "rate_twice_stn", 0), 0.3, **elsewhere)
    write_tables(protocol)
    first, every = text(protocol, "tables/step_size.md").split("Every rate that was run")
    assert "Caution" not in first  # the nearest rate is half, and ran where the others did
    assert "mnist: runs of different processors are compared: Z80 (1), not recorded (9)" in every


@pytest.mark.slow
def test_without_such_runs_it_says_so(protocol: Protocol) -> None:
    made(protocol, "delta_stn", [0.20, 0.21, 0.22], [0.30, 0.31, 0.32])
    made(protocol, "stn", [0.12, 0.13, 0.14], [0.20, 0.21, 0.22])
    write(protocol, RunKey("mnist", "rate_half_stn", 0), 0.3)  # of the first edition, without its training loss
    assert Study(protocol).table("step_size").empty
    write_tables(protocol)
    assert "No run of the protocol is there to be compared." in text(protocol, "tables/step_size.md")
