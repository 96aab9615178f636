"""The robust verdicts on made-up runs: each rule takes a claim away where it should, and nothing else."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from test_claims import DIFFERENCE, Values, apart, claimed

from cpmlho.study.report.measures import MEASURED
from cpmlho.study.report.tables import robust

BELOW = {**DIFFERENCE, "quantity": "final_val_loss", "side": "below"}
HALF = 0.001  # of the difference that the paper prints on MNIST


def robust_of(
    monkeypatch: pytest.MonkeyPatch,
    values: Values,
    *tests: dict[str, object],
    diverged: tuple[str, int] | None = None,
    **claim: object,
) -> list[dict[str, Any]]:
    """The rows of the table, on MNIST; of one method a seed may have diverged."""
    study = claimed(monkeypatch, values, *tests, **claim)
    names = ("loss", "final_val_loss", "final_val_acc", *MEASURED)
    rows = pd.DataFrame(
        {"dataset": "mnist", "method": method, "seed": seed, "status": "done", **dict.fromkeys(names, value)}
        for method, each in values.items()
        for seed, value in enumerate(each)
    )
    if diverged:
        rows.loc[(rows["method"] == diverged[0]) & (rows["seed"] < diverged[1]), "status"] = "diverged"
    done = rows[rows["status"] == "done"]
    monkeypatch.setattr("cpmlho.study.report.claims.measured", lambda study, methods: done)
    study._tables["runs"] = rows.drop(columns=list(MEASURED))
    return study.table("robust").to_dict("records")


def test_what_holds_by_every_rule_stays_reproduced(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = robust_of(monkeypatch, apart(-0.5, 10), BELOW)
    assert (row["registered"], row["robust"], row["choices"]) == ("reproduced", "reproduced", "")


@pytest.mark.parametrize(("lost", "expected"), [(1, "reproduced"), (3, "depends on a choice")])
def test_a_diverged_run_counts_as_the_worst_outcome(monkeypatch: pytest.MonkeyPatch, lost: int, expected: str) -> None:
    (row,) = robust_of(monkeypatch, apart(-0.5, 10), BELOW, diverged=("cpmlho", lost))
    assert (row["registered"], row["robust"]) == ("reproduced", expected)
    assert ("in 7 of 10 seeds, sign test p = 0.34" in row["evidence"]) == (lost == 3)


def test_a_diverged_rival_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = robust_of(monkeypatch, apart(-0.5, 10), BELOW, diverged=("delta_stn", 3))
    assert row["robust"] == "reproduced"


@pytest.mark.parametrize(
    ("quantity", "gap", "expected"),
    [
        ("final_val_loss", -0.8 * HALF, "not reproduced"),
        ("final_val_loss", -3 * HALF, "reproduced"),
        ("final_val_acc", -0.0008, "not reproduced"),  # 0.1 percentage points
        ("final_val_acc", -0.003, "reproduced"),
        ("course_val_loss", -0.8 * HALF, "not reproduced"),
    ],
)
def test_a_difference_below_the_smallest_effect_is_none(
    monkeypatch: pytest.MonkeyPatch, quantity: str, gap: float, expected: str
) -> None:
    (row,) = robust_of(monkeypatch, apart(gap, 10, spread=0.001), {**BELOW, "quantity": quantity})
    assert (row["registered"], row["robust"]) == ("reproduced", expected)


@pytest.mark.parametrize(("spread", "expected"), [(0.0002, "holds"), (0.02, "undecided")])
def test_a_wide_spread_of_our_own_matches_no_printed_number(
    monkeypatch: pytest.MonkeyPatch, spread: float, expected: str
) -> None:
    from cpmlho.study.report.claims import decided, found_in
    from cpmlho.study.report.robust import SMALL, choices
    from cpmlho.study.report.rules import rules

    runs = pd.DataFrame(
        {"dataset": "mnist", "method": "cpmlho", "seed": seed, "final_val_loss": 0.18 + spread * (seed % 3 - 1)}
        for seed in range(9)
    )
    claim = next(claim for claim in rules().claims if claim.id == "C2")
    case = robust.Case("centred", "", "last", None, "cpmlho", "")
    (registered,) = (part for part in decided(list(found_in(claim, case, runs))) if part.n_seeds)
    assert registered.decision == "holds"
    strict = next(choice for choice in choices(claim, case, runs, runs.assign(status="done")) if choice.name == SMALL)
    assert [part.decision for part in strict.parts if part.n_seeds] == [expected]


def test_cases_that_are_unfair_to_the_paper_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {**apart(0.5, 10), "stn": [-1.0 + 0.01 * i for i in range(10)]}
    values["cpmlho_uncentred"] = [x - 0.01 * (i % 2) for i, x in enumerate(values["cpmlho"])]
    rows = robust_of(monkeypatch, values, BELOW, id="C5")
    assert {(row["reading"], row["comparator"]): row["robust"] for row in rows} == {
        ("centred", "delta_stn"): "not reproduced",
        ("uncentred", "delta_stn"): "not reproduced",
        ("uncentred", "stn"): "not counted",
    }


def test_a_claim_on_the_way_to_200_steps_is_read_in_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = {"kind": "bound", "quantity": "share_by_200", "method": "CPMLHO", "bound": 0.9, "side": "above"}
    study_values = {"cpmlho": [0.95 + 0.001 * i for i in range(10)]}
    (row,) = robust_of(monkeypatch, study_values, {**bound, "datasets": ["mnist"]})
    assert row["robust"] == "reproduced"  # here all ways are the same
    measured = pd.DataFrame(
        {
            **{"dataset": "mnist", "method": "cpmlho", "seed": range(10), "status": "done"},
            **dict.fromkeys(MEASURED, study_values["cpmlho"]),
            "share_by_200_logit": [0.6 + 0.001 * i for i in range(10)],
        }
    )
    study = claimed(monkeypatch, study_values, {**bound, "datasets": ["mnist"]})
    monkeypatch.setattr("cpmlho.study.report.claims.measured", lambda study, methods: measured)
    study._tables["runs"] = measured.drop(columns=list(MEASURED))
    (row,) = study.table("robust").to_dict("records")
    assert (row["registered"], row["robust"]) == ("reproduced", "depends on a choice")
    assert row["choices"] == "rates are compared on their own scale"


def test_a_verdict_that_depends_on_the_threshold_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = {"kind": "bound", "quantity": "loss", "method": "CPMLHO", "side": "below", "datasets": ["mnist"]}
    values = {"cpmlho": [0.01 * (1 + 0.01 * (i % 4)) for i in range(10)]}
    (row,) = robust_of(monkeypatch, values, bound, thresholds=[0.005, 0.02])
    assert (row["registered"], row["robust"], row["choices"]) == (
        "inconclusive",
        "depends on a choice",
        "the threshold",
    )


@pytest.mark.parametrize(
    ("ranking", "values", "expected"),
    [
        ("reproduced", "reproduced", "reproduced"),
        ("depends on a choice", "not reproduced", "not reproduced"),
        ("reproduced", "inconclusive", "inconclusive"),
    ],
)
def test_values_and_ranking_together_are_a_claim(ranking: str, values: str, expected: str) -> None:
    rows = [("C1", "delta_stn", ranking), ("C2", "", values)]
    table = pd.DataFrame(
        {"claim": claim, "reading": "centred", "comparator": comparator, "split": "last", "robust": verdict}
        for claim, comparator, verdict in rows
    )
    (row,) = robust._joint(table)
    assert (row["claim"], row["registered"], row["robust"]) == ("J", "not registered", expected)
