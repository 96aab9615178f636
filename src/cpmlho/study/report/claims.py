"""The paper's claims, decided from the result files by the rules that `claims.yaml` has fixed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
import yaml
from pydantic import Field

from cpmlho.study.report.frame import Study
from cpmlho.study.report.measures import measured
from cpmlho.study.report.paper import paper_effect, paper_numbers, quantity_column
from cpmlho.study.report.stats import (
    FEWEST_SEEDS,
    LEVEL,
    Array,
    estimate,
    holm,
    outlying,
    predicted,
    seeds_excluding,
    seeds_needed,
)
from cpmlho.study.settings import Strict

Side = Literal["below", "above"]
Decision = Literal["holds", "fails", "undecided"]
Verdict = Literal["reproduced", "not reproduced", "inconclusive"]


class Difference(Strict):
    """A method against others, paired by seed."""

    kind: Literal["difference"]
    quantity: str
    method: str
    than: list[str]
    side: Side
    datasets: list[str]
    margin: float = 0.0


class Bound(Strict):
    """A method against a number."""

    kind: Literal["bound"]
    quantity: str
    method: str
    bound: float
    side: Side
    datasets: list[str]


class Printed(Strict):
    """Each number of one of the paper's tables against ours."""

    kind: Literal["printed"]
    table: int


class Claim(Strict):
    """One claim of the paper."""

    id: str
    place: str
    quote: str
    rule: str
    tests: list[Annotated[Difference | Bound | Printed, Field(discriminator="kind")]]


class Part(NamedTuple):
    """One test of a claim and what came of it; NaN where there is no such number."""

    claim: str
    dataset: str
    quantity: str
    method: str
    against: str  # a method, or a number
    side: str  # below, above, or printed
    test: str
    estimate: float  # of the difference, or of our mean beside a printed number
    ci_low: float
    ci_high: float
    p: float
    n_seeds: int
    spread: float  # of the other method over seeds: a difference within it is equivalence
    decision: Decision
    seeds_needed: int | None  # where undecided

    @classmethod
    def of(cls, claim: str, dataset: str, test: Difference | Bound, against: str, x: Array, spread: float) -> Self:
        """The mean of `x` (n,), claimed to lie on the test's side of 0."""
        found = estimate(x)
        sign = 1 if test.side == "above" else -1
        ahead = sorted((sign * found.ci_low, sign * found.ci_high))
        if found.n < FEWEST_SEEDS:
            decision: Decision = "undecided"
        elif ahead[0] > 0 and found.p < LEVEL:
            decision = "holds"
        elif ahead[1] < 0 or max(map(abs, ahead)) < spread:
            decision = "fails"
        else:
            decision = "undecided"
        printed = paper_effect(dataset, test.method, against, test.quantity.removeprefix("final_"))
        effect = printed or spread or found.mean
        return cls(
            claim=claim,
            dataset=dataset,
            quantity=test.quantity,
            method=test.method,
            against=against,
            side=test.side,
            test="exact sign flip",
            estimate=found.mean,
            ci_low=found.ci_low,
            ci_high=found.ci_high,
            p=found.p,
            n_seeds=found.n,
            spread=spread,
            decision=decision,
            seeds_needed=seeds_needed(found.std, effect, len(claims())) if decision == "undecided" else None,
        )


@cache
def claims() -> tuple[Claim, ...]:
    """The claims, in the paper's order."""
    text = (files("cpmlho.study.report") / "claims.yaml").read_text(encoding="utf-8")
    return tuple(Claim.model_validate(each) for each in yaml.safe_load(text))


def _values(runs: pd.DataFrame, dataset: str, method: str, quantity: str) -> pd.Series:
    chosen = runs[(runs["dataset"] == dataset) & (runs["method"] == method)]
    return chosen.set_index("seed")[quantity].dropna().astype(float)


def _parts(claim: Claim, runs: pd.DataFrame) -> Iterator[Part]:
    for test in claim.tests:
        if isinstance(test, Printed):
            yield from _printed(claim, test, runs)
            continue
        for dataset in test.datasets:
            ours = _values(runs, dataset, test.method, test.quantity)
            if isinstance(test, Bound):
                x = ours.to_numpy() - test.bound
                yield Part.of(claim.id, dataset, test, f"{test.bound:g}", x, 0.0)
                continue
            for other in test.than:
                theirs = _values(runs, dataset, other, test.quantity)
                common = (ours - theirs).dropna().to_numpy() - test.margin
                spread = float(theirs.std()) if len(theirs) > 1 and not test.margin else 0.0
                yield Part.of(claim.id, dataset, test, other, common, spread)


def _printed(claim: Claim, test: Printed, runs: pd.DataFrame) -> Iterator[Part]:
    cells = []
    for (dataset, method, quantity), printed in paper_numbers(test.table).items():
        x = _values(runs, dataset, method, quantity_column(quantity)).to_numpy()
        cells.append((dataset, quantity, method, printed, x, outlying(x, float(printed)) if len(x) > 1 else math.nan))
    adjusted = holm([cell[-1] for cell in cells])
    for (dataset, quantity, method, printed, x, p), corrected in zip(cells, adjusted, strict=True):
        low, high = predicted(x) if len(x) > 1 else (math.nan, math.nan)
        inside: Decision = "holds" if low <= float(printed) <= high else "undecided"
        decision: Decision = "fails" if corrected < LEVEL else inside
        needed = None
        if len(x) < FEWEST_SEEDS:
            decision, needed = "undecided", FEWEST_SEEDS
        elif decision == "undecided":
            needed = seeds_excluding(float(x.std(ddof=1)), float(printed) - x.mean(), len(cells))
        yield Part(
            claim=claim.id,
            dataset=dataset,
            quantity=quantity_column(quantity),
            method=method,
            against=printed,
            side="printed",
            test="prediction interval",
            estimate=float(np.mean(x)) if len(x) else math.nan,
            ci_low=low,
            ci_high=high,
            p=p,
            n_seeds=len(x),
            spread=math.nan,
            decision=decision,
            seeds_needed=needed,
        )


def tested(study: Study) -> list[Part]:
    """Every test of every claim, from the runs of the protocol."""
    done = measured(study)
    return [part for claim in claims() for part in _parts(claim, done)]
