"""The claims: every rule on made-up runs whose answer is known, and the measures that the rules ask for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_reporting import fill, load

from cpmlho.study.protocol import Protocol
from cpmlho.study.report import claims as module
from cpmlho.study.report.claims import Bound, Claim, Difference, Part, Printed, claims
from cpmlho.study.report.frame import Study, columns
from cpmlho.study.report.measures import MEASURED, TOLERANCE, retreat, settled
from cpmlho.study.report.tables import verdicts
from cpmlho.study.report.tables.verdicts import Verdict

DIFFERENCE = {
    "kind": "difference",
    "quantity": "loss",
    "method": "cpmlho",
    "than": ["delta_stn"],
    "datasets": ["mnist"],
}
RATES = st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=12)


class Decided(NamedTuple):
    """A claim's row of both tables."""

    verdict: Verdict
    p: float
    seeds_needed: float
    decisive: str
    parts: list[Part]


def verdict_of(monkeypatch: pytest.MonkeyPatch, values: dict[str, list[float]], *tests: dict[str, object]) -> Decided:
    """What one claim comes to where each method has these values, a seed each, of `loss` on MNIST."""
    rows = [
        {"dataset": "mnist", "method": method, "seed": seed, "loss": value, "final_val_loss": value}
        for method, each in values.items()
        for seed, value in enumerate(each)
    ]
    claim = Claim.model_validate({"id": "C", "place": "", "quote": "", "rule": "", "tests": list(tests)})
    for each in (module, verdicts):
        monkeypatch.setattr(each, "claims", lambda: (claim,))
    monkeypatch.setattr(module, "measured", lambda study: pd.DataFrame(rows))
    study = Study(Protocol.model_construct(datasets={}))
    (found,) = study.table("verdicts").itertuples()
    parts = [Part(*row) for row in study.table("claims").itertuples(index=False)]
    return Decided(found.verdict, found.p_holm, found.seeds_needed, found.decisive, parts)


def apart(gap: float, seeds: int, spread: float = 0.1) -> dict[str, list[float]]:
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
        (-0.5, 5, "below", "inconclusive"),  # sure, but five seeds have no p-value below 0.0625
        (0.5, 5, "below", "not reproduced"),
        (0.5, 4, "below", "inconclusive"),
        (-0.5, 4, "below", "inconclusive"),
    ],
)
def test_a_difference(monkeypatch: pytest.MonkeyPatch, gap: float, seeds: int, side: str, expected: Verdict) -> None:
    decided = verdict_of(monkeypatch, apart(gap, seeds), {**DIFFERENCE, "side": side})
    assert decided.verdict == expected
    assert pd.notna(decided.seeds_needed) == (expected == "inconclusive")


def test_a_difference_smaller_than_the_spread_is_equivalence(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = [0.01, -0.02, 0.015, -0.01, 0.005, 0.01, -0.02, 0.01, 0.0, -0.005]
    for spread, expected in ((0.1, "not reproduced"), (0.001, "inconclusive")):
        base = [spread * seed for seed in range(10)]
        values = {"delta_stn": base, "cpmlho": [x + y for x, y in zip(base, noise, strict=True)]}
        assert verdict_of(monkeypatch, values, {**DIFFERENCE, "side": "below"}).verdict == expected


def test_a_margin_must_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for margin, expected in ((0.7, "reproduced"), (0.3, "not reproduced")):
        test = {**DIFFERENCE, "side": "below", "margin": margin}
        assert verdict_of(monkeypatch, apart(0.5, 10), test).verdict == expected


@pytest.mark.parametrize(("bound", "expected"), [(0.7, "reproduced"), (0.3, "not reproduced"), (0.55, "inconclusive")])
def test_a_bound(monkeypatch: pytest.MonkeyPatch, bound: float, expected: Verdict) -> None:
    values = {"cpmlho": [0.5 + 0.01 * (i % 4) + (0.1 if i > 5 else 0) for i in range(10)]}
    test = {
        "kind": "bound",
        "quantity": "loss",
        "method": "cpmlho",
        "bound": bound,
        "side": "below",
        "datasets": ["mnist"],
    }
    assert verdict_of(monkeypatch, values, test).verdict == expected


def test_one_failing_test_is_enough_and_the_verdict_turns_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = ({**DIFFERENCE, "side": "below"}, {**DIFFERENCE, "side": "above"})
    decided = verdict_of(monkeypatch, apart(-0.5, 10), *tests)
    assert [part.decision for part in decided.parts] == ["holds", "fails"]
    assert decided.verdict == "not reproduced"
    assert "above Δ-STN" in decided.decisive


def test_a_claims_p_value_is_its_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {**apart(-0.5, 10), "stn": [-0.4, 0.1] + [0.0] * 8}
    tests = ({**DIFFERENCE, "side": "below"}, {**DIFFERENCE, "side": "below", "method": "stn"})
    decided = verdict_of(monkeypatch, values, *tests)
    first, second = (part.p for part in decided.parts)
    assert decided.p == max(first, second) > min(first, second)


@pytest.mark.parametrize(
    ("ours", "seeds", "expected"),
    [(0.1815, 6, "holds"), (0.3, 6, "fails"), (0.1815, 4, "undecided"), (0.3, 4, "undecided")],
)
def test_printed_numbers(monkeypatch: pytest.MonkeyPatch, ours: float, seeds: int, expected: str) -> None:
    values = {"delta_stn": [ours + 0.001 * (seed % 3 - 1) for seed in range(seeds)]}
    decided = verdict_of(monkeypatch, values, {"kind": "printed", "table": 1})
    (part,) = [part for part in decided.parts if part.n_seeds]
    assert (part.against, part.decision) == ("0.182", expected)
    assert decided.verdict == (
        "not reproduced" if expected == "fails" else "inconclusive"
    )  # the other cells have no run


def test_three_seeds_decide_no_claim(tmp_path: Path) -> None:
    protocol = fill(load(tmp_path))
    decided = Study(protocol).table("verdicts")
    assert list(decided["claim"]) == [f"C{i}" for i in range(1, 9)]
    assert set(decided["verdict"]) == {"inconclusive"}  # three seeds
    assert all(math.isnan(p) or p == 1 for p in decided["p_holm"])
    assert all(decided["seeds_needed"] >= 5)


def test_the_claims_ask_for_what_there_is() -> None:
    protocol = load("anywhere")
    known = {*protocol.methods, *protocol.variants}
    for test in (test for claim in claims() for test in claim.tests):
        if isinstance(test, Printed):
            assert test.table in (1, 2, 3)
            continue
        assert test.quantity in {*MEASURED, *columns(protocol)}
        assert set(test.datasets) <= set(protocol.datasets)
        assert isinstance(test, Difference | Bound)
        assert {test.method, *(test.than if isinstance(test, Difference) else ())} <= known


@given(RATES)
def test_settled_is_the_first_update_from_which_all_stay_close(rows: list[tuple[float, float, float]]) -> None:
    stays = [
        all(abs(x - end) <= TOLERANCE for row in rows[i:] for x, end in zip(row, rows[-1], strict=True))
        for i in range(len(rows))
    ]
    assert settled(pd.DataFrame(rows)) == stays.index(True)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=12))
def test_retreat_is_the_largest_move_backwards(path: list[int]) -> None:
    ahead = 1 if path[-1] > path[0] else -1 if path[-1] < path[0] else 0
    moves = [ahead * (path[i] - path[j]) for i in range(len(path)) for j in range(i, len(path))]
    assert retreat(pd.Series(path)) == max(moves)
