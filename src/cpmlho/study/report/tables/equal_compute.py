"""Each search after the gradients of one Δ-STN run, and with all its trials."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from cpmlho.study.report.frame import Study, by_method
from cpmlho.study.report.render import evidence, mean_of, method_of
from cpmlho.study.report.stats import summarise
from cpmlho.study.report.work import evaluations

CAPTION = "Best validation loss of a search within the batch gradients of one Δ-STN run, and with all its trials."


def rows(study: Study) -> Iterator[dict[str, Any]]:
    """A row for each dataset and search; costs in Δ-STN runs."""
    evaluated = evaluations(study)
    cost = {(dataset, method): own["gradients"].max() for dataset, method, own in by_method(evaluated)}
    trials = {(dataset, method): own["trials"].iloc[0] for dataset, method, own in by_method(study.finished)}
    for dataset, method, own in by_method(evaluated):
        if pd.notna(trials[dataset, method]) and (dataset, "delta_stn") in cost:
            budget = cost[dataset, "delta_stn"]
            within = own[own["gradients"] <= budget].groupby("seed")["best"]
            yield {
                "dataset": dataset,
                "method": method,
                "cut_trials": int(within.size().max()),
                **summarise(within.last()).named("cut"),
                "full_trials": trials[dataset, method],
                **summarise(own.groupby("seed")["best"].last()).named("full"),
                "full_cost": cost[dataset, method] / budget,
            }


COLUMNS = {
    "Method": method_of("method"),
    "Trials for one Δ-STN run": lambda row: str(row["cut_trials"]),
    "Loss": mean_of("cut"),
    "All trials": lambda row: str(row["full_trials"]),
    "Their loss": mean_of("full"),
    "Cost in Δ-STN runs": lambda row: f"{row['full_cost']:.1f}",
    "n": lambda row: str(row["full_n_seeds"]),
}


TABLE = evidence("Equal compute", rows, COLUMNS, CAPTION)
