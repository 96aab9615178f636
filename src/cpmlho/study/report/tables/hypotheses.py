"""The hypotheses that a protocol declares, each tested on the seeds that both methods have."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from cpmlho.study.report.frame import Study, framed
from cpmlho.study.report.render import Grid, Linked, interval, listed, number
from cpmlho.study.report.stats import FEWEST_SEEDS, Summary, holm_levels, pairs, sign_test, signs, summarise
from cpmlho.study.report.tables import Table
from cpmlho.study.report.work import evaluations
from cpmlho.study.settings import Hypothesis

TEST = "final_test_loss"
SMALLEST = 0.005  # effect of interest, in test loss
NOT_TESTED = "not tested"
MAIN = "main"  # the family of hypotheses that the headline is about
CAPTION = (
    "Test loss at the last step of a method minus that of another, paired by seed: mean, and Student-t interval at the"
    " level that Holm's correction over each family of hypotheses leaves. Supported: the interval lies below 0"
    f" (expected: below) or within ±{SMALLEST} (expected: equal). Contradicted: it lies above 0 or within ±{SMALLEST}"
    f" (expected: below), or outside of ±{SMALLEST} (expected: equal). A diverged run is the worst outcome; a sign test"
    " then replaces the interval. Not tested: some of the declared seeds are missing. Wins: seeds in which the method"
    " ends lower."
)


def numbers(study: Study) -> pd.DataFrame:
    """A row for each hypothesis and dataset, in the order of the protocol."""
    rows = list(_rows(study))
    levels: dict[int, float] = {}
    for family in dict.fromkeys(row["family"] for row in rows):
        own = [i for i, row in enumerate(rows) if row["family"] == family]
        levels |= zip(own, holm_levels([rows[i]["p"] for i in own]), strict=True)
    return framed(row | _decided(row, levels[i]) for i, row in enumerate(rows))


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    losses = study.ended.assign(loss=study.ended[TEST].where(study.ended["status"] == "done", math.inf))
    for each in study.protocol.hypotheses:
        for dataset in study.among([each.method])["dataset"].unique():
            runs = losses[losses["dataset"] == dataset]
            if each.gradients_of:
                runs = _within(study, runs, each)
            both = pairs(runs, each.method, each.other, "loss")
            diverged = both.isin([math.inf]).any(axis=1)
            yield {
                "dataset": dataset,
                "hypothesis": each.id,
                "claim": each.claim,
                "family": each.family,
                "method": each.method,
                "other": each.other,
                "expected": each.expected,
                "found": summarise((both["ours"] - both["theirs"])[~diverged]),
                **dict(zip(("won", "lost"), signs(both), strict=True)),
                "diverged": int(diverged.sum()),
                "p": _p(both, each.expected) if len(both) >= _asked(study, dataset, each) else math.nan,
            }


def _within(study: Study, runs: pd.DataFrame, hypothesis: Hypothesis) -> pd.DataFrame:
    """The runs, with what a search has found after as many gradients as one run of `gradients_of` takes."""
    evaluated = evaluations(study)
    evaluated = evaluated[evaluated["dataset"] == runs["dataset"].iloc[0]] if len(runs) else evaluated
    budget = evaluated.loc[evaluated["method"] == hypothesis.gradients_of, "gradients"].max()
    own = evaluated[(evaluated["method"] == hypothesis.other) & (evaluated["gradients"] <= budget)]
    best = own.loc[own.groupby("seed")["val_loss"].idxmin()].set_index("seed")["test_loss"]
    is_search = runs["method"] == hypothesis.other
    return runs.assign(loss=runs["loss"].mask(is_search, runs["seed"].map(best)))


def _asked(study: Study, dataset: str, hypothesis: Hypothesis) -> int:
    """The number of seeds that the protocol asks for; fewer test nothing, so that a look on the way decides nothing."""
    runs = study.runs[study.runs["dataset"] == dataset]
    seeds = (set(runs.loc[runs["method"] == name, "seed"]) for name in (hypothesis.method, hypothesis.other))
    return max(len(set.intersection(*seeds)), FEWEST_SEEDS)


def _p(both: pd.DataFrame, expected: str) -> float:
    """The p-value that Holm's correction orders: of the decision that is the nearer one, both ways."""
    if both.isin([math.inf]).any(axis=None):
        return sign_test(*signs(both))
    own = summarise(both["ours"] - both["theirs"])
    other = own.p() if expected == "below" else _p_outside(own)
    return min(other, own.p_within(SMALLEST))


def _p_outside(own: Summary) -> float:
    """The level from which on the whole interval lies on one side of ± the smallest effect."""
    return own.p(math.copysign(SMALLEST, own.mean)) if abs(own.mean) > SMALLEST else 1.0


def _decided(row: dict[str, Any], level: float) -> dict[str, Any]:
    own: Summary = row.pop("found")
    low, high = own.interval(level)
    verdict = "undecided"
    if math.isnan(row["p"]):
        verdict = NOT_TESTED
    elif row["p"] <= level:
        if row["diverged"]:
            verdict = "supported" if row["expected"] == "below" and row["won"] > row["lost"] else "contradicted"
        elif row["expected"] == "below":
            verdict = "supported" if high < 0 and own.p() <= level else "contradicted"
        else:
            verdict = "supported" if own.p_within(SMALLEST) <= level else "contradicted"
    return {**own.named("difference"), "corrected_low": low, "corrected_high": high, "level": level, "verdict": verdict}


def view(study: Study, frame: pd.DataFrame) -> list[Grid]:
    """A line for each row."""
    columns = {
        "Hypothesis": lambda row: Linked(f"{row['hypothesis']}: {row['claim']}", f"{row['dataset']}/{row['method']}"),
        "Difference": lambda row: number(row["difference_mean"], sign="+"),
        "Corrected interval": lambda row: interval(row["corrected_low"], row["corrected_high"]),
        "p": lambda row: number(row["p"], 3),
        "Wins": lambda row: f"{row['won']} of {row['won'] + row['lost']}",
        "n": lambda row: str(row["difference_n_seeds"]),
        "Verdict": lambda row: row["verdict"],
    }
    return listed(study, "Hypotheses", columns, frame, CAPTION, study.runs)


TABLE = Table(numbers, view)
