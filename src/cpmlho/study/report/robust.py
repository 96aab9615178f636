"""The robust verdicts: what remains of each registered verdict under rules that can only take claims away.

These rules, the third edition, were made after the results were known; the registered rules and verdicts stand
unchanged beside them. They are:

- A case that is unfair to the paper is not counted: what it says of Δ-STN is not asked of STN, and numbers that it
  prints for one split are not asked of random splits.
- A diverged run counts as the worst outcome: where one diverged, wins and losses are compared by a sign test.
- Every difference of accuracy or loss has a smallest effect: 0.1 percentage points of accuracy, and half of the
  difference in loss that the paper prints. A claimed difference that is smaller fails.
- A printed number is matched only by a mean whose 95 % interval lies within the smallest effect of it, so that a wide
  spread of our own seeds does not help.
- "200 steps" is read as hyperparameter updates and as training iterations, and rates are compared on their own scale
  and on the logit scale.
- Values and ranking together are a claim of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from cpmlho.study.report.claims import Decision, Found, Part, decided, found_in
from cpmlho.study.report.paper import paper_effect
from cpmlho.study.report.rules import PAPERS, Case, Claim, Printed
from cpmlho.study.report.stats import expit, pairs, sign_test, signs, summarise

ACCURACY = 0.001  # the smallest effect of interest
SAYS_OF_ITS_RIVAL, PRINTS_ONE_SPLIT = ("C5", "C6"), ("C2", "C4")  # claims
SMALL, SMALLEST = "small differences count", "with smallest effects"
DIVERGED, WORST = "diverged runs are left out", "with diverged runs as the worst outcome"
STEPS = {  # by how the measures along a run are called
    "_logit": ("rates are compared on their own scale", "on the logit scale"),
    "_iterations": ("a step is a hyperparameter update", "by training iteration 200"),
    "_logit_iterations": ("both", "by training iteration 200 on the logit scale"),
}


class Choice(NamedTuple):
    """A choice of the registered rules, the other choice in words, and the tests of a claim with that one."""

    name: str
    otherwise: str
    parts: list[Part]


def unfair(claim: Claim, case: Case) -> str:
    """Why a case is not counted; empty if it is."""
    if claim.id in SAYS_OF_ITS_RIVAL and case.comparator != PAPERS:
        return "the paper says this of Δ-STN, not of STN"
    if claim.id in PRINTS_ONE_SPLIT and case.prefix:
        return "the paper prints these numbers for one split"
    return ""


def choices(claim: Claim, case: Case, runs: pd.DataFrame, every: pd.DataFrame) -> Iterator[Choice]:
    """The tests of a claim in one case, with each choice of the registered rules made in the other way.

    Args:
        claim: the claim.
        case: the case.
        runs: the finished runs, with the measures along them.
        every: all runs that have ended, diverged ones too.
    """
    found = list(found_in(claim, case, runs))
    yield Choice(SMALL, SMALLEST, [_strict(each, part) for each, part in zip(found, decided(found), strict=True)])
    signed = [_signed(each, every) for each in found]
    if any(each is not old for each, old in zip(signed, found, strict=True)):
        yield Choice(DIVERGED, WORST, list(decided(signed)))
    for suffix, (name, otherwise) in STEPS.items():
        other = _measured_by(claim, suffix)
        if other != claim:
            yield Choice(name, otherwise, list(decided(list(found_in(other, case, runs)))))


def smallest_effect(part: Part) -> float:
    """The smallest effect of interest of a test; 0 where neither the paper nor the rules give one."""
    if part.quantity.endswith("_acc"):
        return ACCURACY
    name = part.quantity.removeprefix("final_").removeprefix("hyperparameter_").replace("course_", "")
    printed = paper_effect(part.dataset, "cpmlho", PAPERS, name)
    return part.smallest or abs(printed or 0.0) / 2


def _strict(found: Found, part: Part) -> Part:
    """A decided test by the rule of smallest effects."""
    smallest, own = smallest_effect(part), found.own
    decision: Decision = part.decision
    if part.side == "printed" and decision == "holds":
        ends = [expit(end) if found.rate else end for end in (own.ci_low, own.ci_high)]
        decision = "holds" if max(abs(end - float(part.against)) for end in ends) <= smallest else "undecided"
    elif not part.against[0].isdigit() and decision in ("holds", "undecided") and own.p_within(smallest) <= part.level:
        decision = "fails"
    return part._replace(smallest=smallest, decision=decision)


def _signed(found: Found, every: pd.DataFrame) -> Found:
    """A test of a difference as a sign test over all seeds, if one of its runs diverged; else the test itself."""
    part = found.part
    if part.side == "printed" or part.against[0].isdigit():
        return found
    rows = every[every["dataset"] == part.dataset]
    worst = float("inf") if part.side == "below" else float("-inf")
    values = rows.assign(value=rows[part.quantity].where(rows["status"] == "done", worst))
    both = pairs(values, part.method, part.against, "value")
    if not both.isin([worst]).any(axis=None):
        return found
    below, above = signs(both)
    won, p = below if part.side == "below" else above, sign_test(below, above)
    return Found(part._replace(p=p, estimate=won, n_seeds=len(both)), summarise([]), signs=(won, below + above))


def _measured_by(claim: Claim, suffix: str) -> Claim:
    """The claim with the ways of its rates measured on another scale, or by another count of steps."""
    tests = [
        test
        if isinstance(test, Printed) or not test.quantity.endswith("_by_200")
        else test.model_copy(update={"quantity": test.quantity + suffix})
        for test in claim.tests
    ]
    return claim.model_copy(update={"tests": tests})
