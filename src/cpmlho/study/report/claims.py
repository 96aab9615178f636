"""The tests behind the verdicts, each decided from the runs by the rules of `claims.yaml`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from cpmlho.study.report.frame import Study
from cpmlho.study.report.measures import MEASURED, measured
from cpmlho.study.report.paper import paper_effect, paper_numbers, quantity_column
from cpmlho.study.report.rules import PAPERS, Bound, Case, Claim, Difference, Printed, cases, rules
from cpmlho.study.report.stats import (
    FEWEST_SEEDS,
    LEVEL,
    Array,
    Counts,
    Summary,
    counts,
    expit,
    holm_levels,
    logit,
    outlying,
    pairs,
    predicted,
    sign_flip,
    summarise,
)

Decision = Literal["holds", "fails", "undecided", "calibrated"]


class Part(NamedTuple):
    """One test of a claim and what came of it; NaN where there is no such number."""

    claim: str
    reading: str
    comparator: str
    split: str
    threshold: float
    dataset: str
    quantity: str
    method: str
    against: str  # a method, or a number
    side: str  # below, above, or printed
    margin: float  # which the difference is compared with
    estimate: float  # of the difference, or of our mean beside a number
    ci_low: float  # of the interval that decides
    ci_high: float
    level: float  # of that interval, after Holm's correction over the tests of the claim
    p: float  # from which the level decides
    p_exact: float  # of all flips of signs
    smallest: float  # effect of interest
    n_seeds: int
    decision: Decision


class Found(NamedTuple):
    """A test before it is corrected for the number of tests."""

    part: Part
    own: Summary  # of what is compared with 0: a difference, or our value less a bound
    taken: float = 0.0  # the margin or bound that has been taken off
    rate: bool = False  # whether all this is on the logit scale
    signs: tuple[int, int] | None = None  # of a sign test: seeds won, and seeds that are not level


def tested(study: Study) -> list[Part]:
    """Every test of every claim in each of its cases, from the runs of the protocol."""
    made = asked(study)
    runs = measured_runs(study)
    return [part for claim, case in made for part in decided(list(found_in(claim, case, runs)))]


def asked(study: Study) -> list[tuple[Claim, Case]]:
    """Every claim in each of its cases."""
    return [(claim, case) for claim in rules().claims for case in cases(study.protocol, claim)]


def measured_runs(study: Study) -> pd.DataFrame:
    """The finished runs, with the measures that the claims are decided by."""
    return measured(study, {case.method(role) for claim, case in asked(study) for role in _measured_roles(claim)})


def _measured_roles(claim: Claim) -> Iterator[str]:
    for test in claim.tests:
        if not isinstance(test, Printed) and test.quantity in MEASURED:
            yield from (test.method, *(test.than if isinstance(test, Difference) else ()))


def decided(found: list[Found]) -> Iterator[Part]:
    """The tests of one claim in one case, corrected for their number."""
    levels = iter(holm_levels([each.part.p for each in found if each.part.decision != "calibrated"]))
    for each in found:
        yield _decide(each, LEVEL if each.part.decision == "calibrated" else next(levels))


def _decide(found: Found, level: float) -> Part:
    part, own = found.part, found.own
    if found.signs:
        won, decided_by = found.signs
        sided: Decision = "holds" if 2 * won > decided_by else "fails"
        return part._replace(level=level, decision=sided if part.p <= level else "undecided")
    low, high = predicted(own, level) if part.side == "printed" else own.interval(level)
    low, high = low + found.taken, high + found.taken
    if found.rate:
        low, high = expit(low), expit(high)
    decision = part.decision
    if decision == "undecided" and own.n_seeds >= FEWEST_SEEDS:
        decision = _printed_decision(part.p, level) if part.side == "printed" else _decision(part, own, level)
    return part._replace(ci_low=low, ci_high=high, level=level, decision=decision)


def _printed_decision(p: float, level: float) -> Decision:
    return "fails" if p <= level else "holds" if p > LEVEL else "undecided"


def _decision(part: Part, own: Summary, level: float) -> Decision:
    if own.p() <= level:
        return "holds" if (own.mean > 0) == (part.side == "above") else "fails"
    return "fails" if own.p_within(part.smallest) <= level else "undecided"


def found_in(claim: Claim, case: Case, runs: pd.DataFrame) -> Iterator[Found]:
    """The tests of a claim in one case, before they are corrected for their number."""
    for test in claim.tests:
        if isinstance(test, Printed):
            yield from _printed(claim, case, test, runs)
            continue
        for dataset in test.datasets:
            own = runs[runs["dataset"] == dataset]
            named = _named(claim, case, dataset, test.quantity, case.method(test.method))
            if isinstance(test, Bound):
                yield _bound(named, case, test, own)
            else:
                yield from (_difference(named, case, test, other, own) for other in test.than)


def _named(claim: Claim, case: Case, dataset: str, quantity: str, method: str) -> dict[str, Any]:
    threshold = math.nan if case.threshold is None else case.threshold
    where = {"reading": case.reading, "comparator": case.comparator, "split": case.split, "threshold": threshold}
    what = {"claim": claim.id, "dataset": dataset, "quantity": quantity, "method": method}
    open_ = {**dict.fromkeys(("ci_low", "ci_high", "level"), math.nan), "decision": "undecided"}
    return {**what, **where, **open_, "margin": 0.0, "smallest": 0.0}


def _difference(named: dict[str, Any], case: Case, test: Difference, other: str, runs: pd.DataFrame) -> Found:
    against = case.method(other)
    both = pairs(runs, named["method"], against, test.quantity).to_numpy(dtype=float)
    own = summarise(both[:, 0] - both[:, 1] - test.margin)
    moved: Array | Counts = both[:, 0] - both[:, 1] - test.margin
    if test.quantity.endswith("_acc"):
        whole = counts(both.ravel()).reshape(-1, 2)
        moved = whole[:, 0] - whole[:, 1]
    rival = PAPERS if other == "COMPARATOR" else other
    printed = paper_effect(named["dataset"], "cpmlho", rival, test.quantity.removeprefix("final_"))
    smallest = abs(printed) / 2 if printed else 0.0
    found = {"against": against, "side": test.side, "margin": test.margin, "smallest": smallest}
    p = {"p": min(own.p(), own.p_within(smallest)), "p_exact": sign_flip(moved)}
    part = Part(**(named | found | p), estimate=own.mean + test.margin, n_seeds=own.n_seeds)
    return Found(part, own, test.margin)


def _bound(named: dict[str, Any], case: Case, test: Bound, runs: pd.DataFrame) -> Found:
    bound = test.bound if test.bound is not None else case.threshold
    assert bound is not None, f"{named['claim']}: a bound, or thresholds of the claim"
    rate = is_rate(test.quantity)
    x, taken = _values(runs, named["method"], test.quantity), float(bound)
    if rate:
        x, taken = logit(x), float(logit(np.array(bound)))
    own = summarise(x - taken)
    mean = own.mean + taken
    found = {"against": f"{bound:g}", "side": test.side, "p": own.p(), "p_exact": sign_flip(x - taken)}
    part = Part(**(named | found), estimate=expit(mean) if rate else mean, n_seeds=own.n_seeds)
    return Found(part, own, taken, rate)


def _printed(claim: Claim, case: Case, test: Printed, runs: pd.DataFrame) -> Iterator[Found]:
    for (dataset, row, quantity), printed in paper_numbers(test.table).items():
        column = quantity_column(quantity)
        named = _named(claim, case, dataset, column, case.method(row))
        x, ends = _values(runs[runs["dataset"] == dataset], named["method"], column), np.array(rounding(printed))
        rate = is_rate(column)
        if rate:
            x, ends = logit(x), logit(ends)
        own = summarise(x)
        p = outlying(own, *ends) if own.n_seeds > 1 else math.nan
        decision = {"decision": "calibrated"} if row in test.calibrated else {}
        found = {"against": printed, "side": "printed", "p": p, "p_exact": math.nan, "n_seeds": own.n_seeds}
        part = Part(**(named | found | decision), estimate=expit(own.mean) if rate else own.mean)
        yield Found(part, own, 0.0, rate)


def is_rate(quantity: str) -> bool:
    """Whether a quantity is compared on the logit scale: a dropout rate at the end of a run."""
    return quantity.startswith("hyperparameter_dropout")


def rounding(printed: str) -> tuple[float, float]:
    """The numbers that are printed so: `0.180` stands for 0.1795 to 0.1805."""
    half = 0.5 * 10.0 ** -len(printed.partition(".")[2])
    return float(printed) - half, float(printed) + half


def _values(runs: pd.DataFrame, method: str, quantity: str) -> Array:
    own = runs.loc[runs["method"] == method]
    return own[quantity].dropna().to_numpy(dtype=float) if quantity in own else np.array([])
