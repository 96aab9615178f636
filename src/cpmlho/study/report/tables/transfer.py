"""Training with the values that another method found, held fixed, against the run that found them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cpmlho.study.report.frame import LOSS, Study, by_method
from cpmlho.study.report.render import DIFFERENCE, evidence, mean_of, method_of
from cpmlho.study.report.stats import pairs, summarise

CAPTION = (
    "Final validation loss of a run that tunes, and of a run from the same initialisation with that run's final values"
    " held fixed; the difference is retrained minus tuned, paired by seed."
)


def rows(study: Study) -> Iterator[dict[str, Any]]:
    """A row for each dataset and method that takes another's values."""
    for dataset, method, _ in by_method(study.runs):
        source = study.spec(dataset, method).values_of
        runs = study.finished[study.finished["dataset"] == dataset]
        if source and len(both := pairs(runs, method, source, LOSS)):
            yield {
                **{"dataset": dataset, "source": source, "retrained": method},
                **summarise(both["theirs"]).named("tuned"),
                **summarise(both["ours"]).named("retrained"),
                **summarise(both["ours"] - both["theirs"]).named("difference"),
            }


COLUMNS = {
    "Values of": method_of("source"),
    "Tuned": mean_of("tuned"),
    "Retrained": mean_of("retrained"),
    **DIFFERENCE,
}


TABLE = evidence("Transfer", rows, COLUMNS, CAPTION)
