"""The hypotheses that a protocol declares, on made-up runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_reporting import load, write

from cpmlho.study.protocol import Protocol, RunKey
from cpmlho.study.report.answer import findings, headline
from cpmlho.study.report.tables.hypotheses import SMALLEST
from cpmlho.study.report.write import study_of
from cpmlho.study.strict import ConfigError

SEEDS = 6
RUN = {"datasets": ["mnist"], "methods": ["fixed", "delta_stn", "stn"], "variants": [], "seeds": [*range(SEEDS)]}
NOISE = np.array([0.3, -0.1, -0.4, 0.2, 0.1, -0.1])  # of mean 0


def hypothesis(id_: str, method: str, expected: str, **more: str) -> dict[str, str]:
    return {"id": id_, "claim": f"claim {id_}", "method": method, "other": "fixed", "expected": expected, **more}


@pytest.fixture
def protocol(tmp_path: Path) -> Protocol:
    declared = [hypothesis("lower", "delta_stn", "below"), hypothesis("alike", "stn", "equal")]
    return load(tmp_path, run=RUN, hypotheses=declared, data={"split": "random"})


def rows(protocol: Protocol, differences: dict[str, Any]) -> pd.DataFrame:
    """The table, from runs of each method whose test losses differ so much from those of `fixed`."""
    for method, values in {"fixed": np.zeros(SEEDS), **differences}.items():
        for seed, value in enumerate(values):
            status = "done" if math.isfinite(value) else "diverged"
            write(protocol, RunKey("mnist", method, seed), 0.5 + 0.01 * seed + value, status=status)
    return study_of(protocol).table("hypotheses").set_index("hypothesis")


@pytest.mark.parametrize(
    ("mean", "spread", "lower", "alike"),
    [
        (-0.1, 0.01, "supported", "contradicted"),
        (0.1, 0.01, "contradicted", "contradicted"),
        (-0.1, 1.0, "undecided", "undecided"),
        (0.0005, 0.001, "contradicted", "supported"),
        (-0.003, 0.001, "supported", "supported"),  # significant, and too small to matter
    ],
)
def test_a_hypothesis_is_decided_both_ways(
    protocol: Protocol, mean: float, spread: float, lower: str, alike: str
) -> None:
    table = rows(protocol, dict.fromkeys(["delta_stn", "stn"], mean + spread * NOISE))
    assert table["verdict"].to_dict() == {"lower": lower, "alike": alike}


def test_the_p_values_and_intervals_are_students_with_holms_correction(protocol: Protocol) -> None:
    differences = {"delta_stn": -0.02 + 0.05 * NOISE, "stn": 0.002 + 0.01 * NOISE}
    table = rows(protocol, differences)
    first = stats.ttest_1samp(differences["delta_stn"], 0)
    assert table["p"]["lower"] == pytest.approx(first.pvalue, rel=1e-6)
    sides = [stats.ttest_1samp(differences["stn"], bound).pvalue for bound in (SMALLEST, -SMALLEST)]
    assert table["p"]["alike"] == pytest.approx(max(sides), rel=1e-6)
    low, high = stats.ttest_1samp(differences["delta_stn"], 0).confidence_interval(1 - 0.05 / 2)
    assert table.loc["lower", ["corrected_low", "corrected_high"]].tolist() == pytest.approx([low, high], rel=1e-6)


def test_a_diverged_run_is_the_worst_outcome(protocol: Protocol) -> None:
    differences = np.array([-0.1, -0.1, -0.1, -0.1, -0.1, math.nan])
    table = rows(protocol, {"delta_stn": differences, "stn": np.zeros(SEEDS)})
    own = table.loc["lower"]
    assert (own["won"], own["lost"], own["diverged"]) == (5, 1, 1)
    assert own["p"] == pytest.approx(stats.binomtest(5, 6).pvalue)
    assert own["verdict"] == "undecided"


def test_before_all_seeds_have_ended_nothing_is_tested(protocol: Protocol) -> None:
    table = rows(protocol, {"delta_stn": [-0.1, -0.2, -0.1, -0.1, -0.1]})
    assert set(table["verdict"]) == {"not tested"}
    assert "claim" not in headline(study_of(protocol))


def test_the_headline_says_what_was_found(protocol: Protocol) -> None:
    rows(protocol, {"delta_stn": -0.1 + 0.01 * NOISE, "stn": 0.3 * NOISE})
    study = study_of(protocol)
    assert "claim lower" in headline(study)
    assert "claim alike" not in headline(study)
    assert dict(findings(study))["Undecided"] == "claim alike."


def test_holms_correction_is_within_a_family(tmp_path: Path) -> None:
    declared = [hypothesis(f"family{i}", "delta_stn", "below", family=f"family{i}") for i in range(3)]
    table = rows(
        load(tmp_path, run=RUN, hypotheses=declared, data={"split": "random"}), {"delta_stn": -0.02 + 0.05 * NOISE}
    )
    assert table["level"].tolist() == [0.05] * 3


def test_a_hypothesis_of_a_run_that_nobody_makes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hypotheses\.H1.*cpmlho"):
        load(tmp_path, run=RUN, hypotheses=[hypothesis("H1", "cpmlho", "below")])
