"""CPMLHO minus each other method, and how small a difference the seeds could have shown."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from scipy import special

from cpmlho.study.report.frame import LOSS, Study
from cpmlho.study.report.paper import paper_effect
from cpmlho.study.report.render import DIFFERENCE, evidence, interval_of, method_of, number
from cpmlho.study.report.rules import is_papers_setting, readings_run
from cpmlho.study.report.stats import LEVEL, Summary, paired, pairs, signs

POWER = 0.8
CAPTION = (
    "Final validation loss of CPMLHO minus that of each other method, paired by seed: mean, 95 % Student-t interval,"
    " not corrected for multiple comparisons; lower is better. Detectable: the smallest true difference that a test at"
    " the 5 % level would find in 80 % of repetitions, from the spread of these differences. Wins: seeds in which"
    " CPMLHO ends lower, a diverged run counting as the worst outcome."
)


def rows(study: Study) -> Iterator[dict[str, Any]]:
    """A row for each dataset, reading of CPMLHO and other method."""
    ours = readings_run(study.protocol)
    others = [name for name in study.protocol.run.methods if name not in ours]
    for dataset, method, other in product(study.protocol.run.datasets, ours, others):
        runs = study.finished[study.finished["dataset"] == dataset]
        found = paired(runs, method, other, LOSS)
        printed = paper_effect(dataset, "cpmlho", other, "val_loss") if is_papers_setting(study.protocol) else None
        if found.n_seeds:
            yield {
                **{"dataset": dataset, "method": method, "other": other},
                **found.named("difference"),
                "detectable": detectable(found),
                "paper_difference": float("nan") if printed is None else printed,
                **dict(zip(("won", "lost"), _signs(study, dataset, method, other), strict=True)),
                **paired(runs, method, other, "final_test_loss").named("test"),
            }


def detectable(found: Summary, power: float = POWER) -> float:
    """The true mean difference that a t-test of these differences would find with this power."""
    if found.n_seeds < 2:
        return float("nan")
    quantiles = special.stdtrit(found.n_seeds - 1, [1 - LEVEL / 2, power])
    return float(quantiles.sum() * found.std / found.n_seeds**0.5)


def _signs(study: Study, dataset: str, method: str, other: str) -> tuple[int, int]:
    """Seeds that a method wins and loses; a diverged run is the worst outcome."""
    ended = study.ended[study.ended["dataset"] == dataset]
    losses = ended.assign(loss=ended[LOSS].where(ended["status"] == "done", float("inf")))
    return signs(pairs(losses, method, other, "loss"))


COLUMNS = {
    "CPMLHO": method_of("method"),
    "Minus": method_of("other"),
    **DIFFERENCE,
    "Paper": lambda row: number(row["paper_difference"], 3, "+"),
    "Detectable": lambda row: number(row["detectable"], 5),
    "Wins": lambda row: f"{row['won']} of {row['won'] + row['lost']}",
    "Test loss": lambda row: number(row["test_mean"], sign="+"),
    "Its interval": interval_of("test"),
}


TABLE = evidence("Differences", rows, COLUMNS, CAPTION, lambda study, frame: study.compared)
