"""Methods at the learning rate of equal training loss, on made-up runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_reporting import load, text, write

from cpmlho.study.protocol import Protocol, RunKey
from cpmlho.study.report.write import study_of, write_tables

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


def test_losses_are_interpolated_by_seed_to_equal_training_loss(protocol: Protocol) -> None:
    made(protocol, "fixed", [0.1, 0.1, 0.1], [0.1, 0.1, 0.1])
    made(protocol, "delta_stn", [0.20, 0.21, 0.22], [0.30, 0.31, 0.32])
    made(protocol, "rate_twice_delta_stn", [0.10, 0.11, 0.12], [0.20, 0.21, 0.22])
    made(protocol, "rate_half_stn", [0.24, 0.25, 0.21], [0.36, 0.37, 0.33])  # the last does not bracket 0.22
    made(protocol, "stn", [0.16, 0.17, 0.13], [0.28, 0.29, 0.25])
    made(protocol, "rate_twice_stn", [0.05, 0.05, 0.05], [0.1, 0.1, 0.1])
    made(protocol, "cpmlho", [0.30, 0.31, 0.32], [0.35, 0.36, 0.37])  # both above Δ-STN's
    made(protocol, "rate_twice_cpmlho", [0.21, 0.22, 0.23], [0.29, 0.30, 0.31])
    rows = study_of(protocol).table("step_size").set_index("runs")
    assert list(rows["rate"]) == [0.01, 0.02, 0.005, 0.01, 0.02, 0.01, 0.02]
    assert rows.loc["rate_twice_cpmlho", "train_difference"] == pytest.approx(0.01)
    (row,) = study_of(protocol).table("matched").itertuples()
    assert (row.method, row.low_rate, row.high_rate, row.difference_n_seeds) == ("stn", 0.005, 0.01, 3)
    assert row.difference_mean == pytest.approx((0.32 - 0.30 + 0.33 - 0.31 + 0.34 - 0.32) / 3)
    assert row.test_mean == pytest.approx(row.difference_mean)


@pytest.mark.slow
def test_without_training_losses_there_is_nothing_to_compare(protocol: Protocol) -> None:
    made(protocol, "delta_stn", [0.20, 0.21, 0.22], [0.30, 0.31, 0.32])
    write(protocol, RunKey("mnist", "rate_half_stn", 0), 0.3)  # of the first edition, without its training loss
    study = study_of(protocol)
    assert study.table("step_size").empty
    assert study.table("matched").empty
    write_tables(protocol)
    assert text(protocol, "tables/matched.csv") == "dataset\n"
