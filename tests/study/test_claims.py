"""The claims: every rule on made-up runs whose answer is known, how often the rules err, and what they measure."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_reporting import fill, load

from cpmlho.study.protocol import Protocol
from cpmlho.study.report import claims as module
from cpmlho.study.report import rules as rule_module
from cpmlho.study.report.claims import Found, Part, decided, rounding
from cpmlho.study.report.frame import Study, columns
from cpmlho.study.report.measures import MEASURED, retreat, way
from cpmlho.study.report.rules import Bound, Difference, Printed, Rules, rules
from cpmlho.study.report.stats import summarise
from cpmlho.study.report.tables import verdicts
from cpmlho.study.report.write import study_of

READINGS = [
    {"name": "centred", "method": "cpmlho", "own": "delta_stn"},
    {"name": "uncentred", "method": "cpmlho_uncentred", "own": "stn"},
]
DIFFERENCE = {
    "kind": "difference",
    "quantity": "loss",
    "method": "CPMLHO",
    "than": ["COMPARATOR"],
    "datasets": ["mnist"],
}
BOUND = {"kind": "bound", "quantity": "loss", "method": "CPMLHO", "side": "below", "datasets": ["mnist"]}
Values = dict[str, list[float]]


def claimed(monkeypatch: pytest.MonkeyPatch, values: Values, *tests: dict[str, object], **claim: object) -> Study:
    """One claim on runs where each method has these values, a seed each, of `loss` and all else on MNIST."""
    names = ("loss", "final_val_loss", "hyperparameter_dropout0")
    rows = [
        {"dataset": "mnist", "method": method, "seed": seed, **dict.fromkeys(names, value)}
        for method, each in values.items()
        for seed, value in enumerate(each)
    ]
    content = {"id": "C", "place": "", "quote": "", "rule": "", "tests": list(tests), **claim}
    splits = {"last": "", "random": "split_random_"}
    made = Rules.model_validate({"readings": READINGS, "splits": splits, "claims": [content]})
    for each in (module, rule_module, verdicts):
        monkeypatch.setattr(each, "rules", lambda: made)
    monkeypatch.setattr(module, "measured", lambda study, methods: pd.DataFrame(rows))
    run = SimpleNamespace(methods=[], variants=list(values))
    data = SimpleNamespace(split="last")
    return study_of(Protocol.model_construct(datasets={}, run=run, data=data, results_dir=""))


def verdict_of(monkeypatch: pytest.MonkeyPatch, values: Values, *tests: dict[str, object], **claim: object) -> str:
    (verdict,) = claimed(monkeypatch, values, *tests, **claim).table("verdicts")["verdict"]
    return str(verdict)


def apart(gap: float, seeds: int, spread: float = 0.1) -> Values:
    """CPMLHO above Delta-STN by about `gap`, whose seeds are apart by `spread`."""
    base = [spread * seed for seed in range(seeds)]
    return {"delta_stn": base, "cpmlho": [x + gap * (1 + 0.1 * (i % 3)) for i, x in enumerate(base)]}


@pytest.mark.parametrize(
    ("gap", "seeds", "side", "expected"),
    [
        (-0.5, 10, "below", "reproduced"),
        (0.5, 10, "above", "reproduced"),
        (0.5, 10, "below", "not reproduced"),
        (-0.5, 10, "above", "not reproduced"),
        (-0.01, 10, "below", "reproduced"),  # small, but sure
        (-0.5, 5, "below", "reproduced"),
        (0.5, 5, "below", "not reproduced"),
        (0.5, 4, "below", "inconclusive"),
        (-0.5, 4, "below", "inconclusive"),
    ],
)
def test_a_difference(monkeypatch: pytest.MonkeyPatch, gap: float, seeds: int, side: str, expected: str) -> None:
    study = claimed(monkeypatch, apart(gap, seeds), {**DIFFERENCE, "side": side})
    (row,) = study.table("verdicts").itertuples()
    assert row.verdict == expected
    assert row.exploratory == (seeds < 10)


def test_a_rival_that_the_protocol_does_not_run_is_said_to_be_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    test = {**DIFFERENCE, "side": "below", "than": ["COMPARATOR", "random_search"]}
    (words,) = claimed(monkeypatch, apart(-0.5, 10), test).table("verdicts")["decisive"]
    assert words == "undecided: mnist, CPMLHO: loss below RS (not in this protocol): not run"


def test_within_half_of_the_printed_difference_a_test_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper prints 0.180 and 0.182; the seeds' own spread, however wide, makes nothing equivalent."""
    noise = [1, -2, 1.5, -1, 0.5, 1, -2, 1, 0, -0.5]
    for scale, quantity, expected in (
        (2e-4, "final_val_loss", "not reproduced"),
        (2e-3, "final_val_loss", "inconclusive"),
        (2e-4, "loss", "inconclusive"),  # of which the paper prints nothing
    ):
        base = [0.1 * seed for seed in range(10)]
        values = {"delta_stn": base, "cpmlho": [x + scale * y for x, y in zip(base, noise, strict=True)]}
        assert verdict_of(monkeypatch, values, {**DIFFERENCE, "side": "below", "quantity": quantity}) == expected


def test_a_margin_must_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for margin, expected in ((0.7, "reproduced"), (0.3, "not reproduced")):
        test = {**DIFFERENCE, "side": "below", "margin": margin}
        assert verdict_of(monkeypatch, apart(0.5, 10), test) == expected


@pytest.mark.parametrize(("bound", "expected"), [(0.7, "reproduced"), (0.3, "not reproduced"), (0.55, "inconclusive")])
@pytest.mark.parametrize("quantity", ["loss", "hyperparameter_dropout0"])
def test_a_bound(monkeypatch: pytest.MonkeyPatch, bound: float, expected: str, quantity: str) -> None:
    values = {"cpmlho": [0.5 + 0.01 * (i % 4) + (0.1 if i > 5 else 0) for i in range(10)]}
    study = claimed(monkeypatch, values, {**BOUND, "bound": bound, "quantity": quantity})
    assert list(study.table("verdicts")["verdict"]) == [expected]
    (part,) = study.table("claims").itertuples()
    assert 0.5 < part.ci_low < part.estimate < part.ci_high < 0.63  # on its own scale


@pytest.mark.parametrize(
    ("value", "expected"), [(0.001, "reproduced"), (0.03, "not reproduced"), (0.01, "inconclusive")]
)
def test_a_verdict_that_depends_on_the_threshold_is_inconclusive(
    monkeypatch: pytest.MonkeyPatch, value: float, expected: str
) -> None:
    values = {"cpmlho": [value * (1 + 0.01 * (i % 4)) for i in range(10)]}
    study = claimed(monkeypatch, values, BOUND, thresholds=[0.005, 0.02])
    assert list(study.table("verdicts")["verdict"]) == [expected]
    assert list(study.table("claims")["against"]) == ["0.005", "0.02"]


def test_one_failing_test_is_enough_and_the_verdict_rests_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = ({**DIFFERENCE, "side": "below"}, {**DIFFERENCE, "side": "above"})
    study = claimed(monkeypatch, apart(-0.5, 10), *tests)
    assert list(study.table("claims")["decision"]) == ["holds", "fails"]
    (row,) = study.table("verdicts").itertuples()
    assert row.verdict == "not reproduced"
    assert row.decisive.startswith("fails: mnist, CPMLHO: loss above Δ-STN")


def test_a_claim_reproduced_rests_on_the_test_of_the_fewest_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    test = {**DIFFERENCE, "side": "below", "than": ["COMPARATOR", "random_search"]}
    values = apart(-0.5, 10)
    for few, expected in ((10, False), (8, True)):
        (row,) = claimed(monkeypatch, {**values, "random_search": [5.0] * few}, test).table("verdicts").itertuples()
        assert (row.verdict, row.exploratory) == ("reproduced", expected)
        assert row.decisive.endswith(f"n={few}")


def test_more_tests_need_more_each(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"delta_stn": [0.0] * 10, "cpmlho": [1.0, -0.1] * 5}  # p = 0.037
    test = {**DIFFERENCE, "side": "above"}
    assert verdict_of(monkeypatch, values, test) == "reproduced"
    assert verdict_of(monkeypatch, values, *[test] * 5) == "inconclusive"


def test_a_claim_is_decided_for_each_reading_against_each_comparator_on_each_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {**apart(-0.5, 10), "stn": [-1.0 + 0.01 * i for i in range(10)]}
    values["cpmlho_uncentred"] = [x - 0.01 * (i % 2) for i, x in enumerate(values["cpmlho"])]
    for name in ("cpmlho", "delta_stn"):
        values[f"split_random_{name}"] = list(reversed(values[name]))
    study = claimed(monkeypatch, values, {**DIFFERENCE, "side": "below"})
    found = study.table("verdicts").set_index(["reading", "comparator", "split"])["verdict"].to_dict()
    assert found == {
        ("centred", "delta_stn", "last"): "reproduced",
        ("centred", "delta_stn", "random"): "reproduced",
        ("uncentred", "delta_stn", "last"): "reproduced",
        ("uncentred", "stn", "last"): "not reproduced",
    }


@pytest.mark.parametrize(
    ("ours", "seeds", "expected"),
    [(0.1815, 6, "holds"), (0.3, 6, "fails"), (0.1815, 4, "undecided"), (0.3, 4, "undecided")],
)
def test_printed_numbers(monkeypatch: pytest.MonkeyPatch, ours: float, seeds: int, expected: str) -> None:
    values = {"cpmlho": [ours + 0.001 * (seed % 3 - 1) for seed in range(seeds)]}
    study = claimed(monkeypatch, values, {"kind": "printed", "table": 1})
    (part,) = (part for part in study.table("claims").itertuples() if part.n_seeds)
    assert (part.against, part.decision) == ("0.180", expected)
    (verdict,) = study.table("verdicts")["verdict"]
    assert verdict == ("not reproduced" if expected == "fails" else "inconclusive")  # the other cells have no run


def test_calibrated_cells_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"cpmlho": [0.181] * 6, "delta_stn": [0.9] * 6}
    for calibrated, fails in (([], 1), (["delta_stn"], 0)):
        test = {"kind": "printed", "table": 1, "calibrated": calibrated}
        tests = claimed(monkeypatch, values, test).table("claims")
        assert (tests["decision"] == "fails").sum() - (tests["against"] == "0.180").sum() == fails
        assert (tests["decision"] == "calibrated").sum() == 2 * (1 - fails)


@pytest.mark.parametrize(("printed", "expected"), [("0.180", (0.1795, 0.1805)), ("2.2", (2.15, 2.25))])
def test_a_printed_number_stands_for_what_is_rounded_to_it(printed: str, expected: tuple[float, float]) -> None:
    assert rounding(printed) == pytest.approx(expected)


def simulated(effect: float, spread: float, seeds: int, tests: int = 6) -> np.ndarray:
    """Shares of claims, of tests all with this true difference, in which one test at least holds, fails, is open.

    The claimed side is below; the smallest effect of interest is 1, as if the paper printed -2.
    """
    generator, shares = np.random.default_rng(1), []
    blank: dict[str, Any] = dict.fromkeys(Part._fields, 0.0) | {"side": "below", "decision": "undecided"}
    for x in generator.normal(effect, spread, size=(500, tests, seeds)):
        own = [summarise(each) for each in x]
        parts = [Part(**(blank | {"smallest": 1.0, "p": min(each.p(), each.p_within(1.0))})) for each in own]
        decisions = {part.decision for part in decided([Found(*each) for each in zip(parts, own, strict=True)])}
        shares.append([name in decisions for name in ("holds", "fails", "undecided")])
    return np.mean(shares, axis=0)


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_how_often_the_rules_err(seeds: int, spread: float) -> None:
    """Over all tests of a claim together: no effect seldom holds; the paper's effect, or half of it, seldom fails."""
    assert simulated(0.0, spread, seeds)[0] <= 0.05 + 0.02  # two standard errors
    assert simulated(-2.0, spread, seeds)[1] <= 0.05 + 0.02
    assert simulated(-1.0, spread, seeds)[1] <= 0.05 + 0.02


def test_how_often_the_rules_decide() -> None:
    """With ten seeds, where the differences have a spread of a third of the smallest effect of interest."""
    assert simulated(0.0, 1 / 3, 10)[1] >= 0.95
    assert simulated(-2.0, 1 / 3, 10, tests=1)[0] >= 0.95


def test_three_seeds_decide_no_claim(tmp_path: Path) -> None:
    protocol = fill(load(tmp_path))
    decided = study_of(protocol).table("verdicts")
    assert list(decided["claim"]) == [f"C{i}" for i in range(1, 9)]
    assert set(decided["verdict"]) == {"inconclusive"}
    assert set(decided["reading"]) == {"centred"}


def test_the_claims_ask_for_what_there_is() -> None:
    protocol = load(Path("anywhere"))
    known = {*protocol.methods, *protocol.variants}
    for test in (test for claim in rules().claims for test in claim.tests):
        if isinstance(test, Printed):
            assert test.table in (1, 2, 3)
            continue
        assert test.quantity in {*MEASURED, *columns(protocol)}
        assert set(test.datasets) <= set(protocol.datasets)
        assert isinstance(test, Difference | Bound)
        names = {test.method, *(test.than if isinstance(test, Difference) else ())}
        assert {name.replace("CPMLHO", "cpmlho").replace("COMPARATOR", "delta_stn") for name in names} <= known


def test_every_bound_is_a_number_or_a_threshold() -> None:
    for claim in rules().claims:
        bounds = [test.bound for test in claim.tests if isinstance(test, Bound)]
        assert all(bound is None for bound in bounds) if claim.thresholds else None not in bounds


def test_the_way_is_measured_from_the_start_and_to_the_end() -> None:
    rates = pd.DataFrame({"a": [0.5, 0.4, 0.1, 0.1], "b": [0.1, 0.3, 0.2, 0.5]})
    assert way(rates, 1) == pytest.approx((1 - (0.3 + 0.2) / (0.4 + 0.4), (0.1 + 0.2) / 2))
    assert way(rates, 3) == pytest.approx((1.0, 0.4))
    assert all(map(np.isnan, way(rates, 4)))
    assert np.isnan(way(rates.iloc[[0, 1, 0]], 1)[0])  # no way at all


@given(st.lists(st.integers(0, 100), min_size=1, max_size=12))
def test_retreat_is_the_largest_move_backwards(path: list[int]) -> None:
    ahead = 1 if path[-1] > path[0] else -1 if path[-1] < path[0] else 0
    moves = [ahead * (path[i] - path[j]) for i in range(len(path)) for j in range(i, len(path))]
    assert retreat(pd.Series(path)) == max(moves)
