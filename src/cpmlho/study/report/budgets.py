"""Fair budgets: what a method has reached after how much work, and what its values are worth without its schedule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from cpmlho.study.protocol import Protocol, RunKey, RunSpec
from cpmlho.study.report.aggregate import Summary, by_method, finished, paired, summarise
from cpmlho.study.report.measures import rows_of
from cpmlho.study.report.statistics import Array
from cpmlho.study.results import HISTORY
from cpmlho.study.settings import Cpmlho, Response

EPOCHS = (1, 3, 7, 15, 30)  # of the budget study
POINTS = 200  # of a curve
LOSS = "final_val_loss"
Row = dict[str, Any]


def gradients_per_step(spec: RunSpec) -> float:
    """Gradients of a batch's loss for each training iteration, those of the hyperparameter steps shared out.

    One for training at fixed values; a response step is another, and a hyperparameter step one for each of its batches.
    """
    settings = spec.settings
    if not isinstance(settings, Response):
        return 1.0
    batches = 2 if isinstance(settings, Cpmlho) and settings.mixed_level else 1
    return 2.0 + settings.valid_steps * batches / settings.train_steps


def courses(protocol: Protocol, runs: pd.DataFrame) -> pd.DataFrame:
    """Each finished run's evaluations: epoch, seconds and gradients so far, val_loss, and the best of it so far."""
    parts = []
    for key in finished(runs)[["dataset", "method", "seed"]].itertuples(index=False):
        spec = protocol.resolve(RunKey(*key))
        rows = rows_of(protocol, RunKey(*key), HISTORY)[["epoch", "step", "seconds", "val_loss"]]
        rows["gradients"] = rows["step"] * gradients_per_step(spec)
        rows["best"] = rows["val_loss"].cummin()
        parts.append(rows.assign(**RunKey(*key)._asdict()))
    columns = ["dataset", "method", "seed", "epoch", "step", "seconds", "val_loss", "gradients", "best"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def anytime(course: pd.DataFrame, work: str) -> pd.DataFrame:
    """Best loss so far of one method against work: the median over seeds, lowest and highest, from where all have one.

    Args:
        course: rows of `courses` of one dataset and method.
        work: `seconds` or `gradients`.
    """
    seeds = [(each[work].to_numpy(), each["best"].to_numpy()) for _, each in course.groupby("seed")]
    first, last = max(x[0] for x, _ in seeds), max(x[-1] for x, _ in seeds)
    grid: Array = np.geomspace(first, last, POINTS) if last > first else np.array([first])
    grid[0], grid[-1] = first, last  # whatever geomspace has rounded
    best = np.stack([y[np.searchsorted(x, grid, side="right") - 1] for x, y in seeds])
    return pd.DataFrame(
        {work: grid, "median": np.median(best, 0), "low": best.min(0), "high": best.max(0), "n_seeds": len(seeds)}
    )


def equal_compute(protocol: Protocol, runs: pd.DataFrame) -> Iterator[Row]:
    """Each search cut at the gradients of one Delta-STN run, beside its full number of trials."""
    course = courses(protocol, runs)
    cost = {(dataset, method): own["gradients"].max() for dataset, method, own in by_method(course)}
    for dataset, method, own in by_method(course):
        spec = protocol.resolve(RunKey(dataset, method, 0))
        if hasattr(spec.settings, "trials") and (dataset, "delta_stn") in cost:
            budget = cost[dataset, "delta_stn"]
            within = own[own["gradients"] <= budget].groupby("seed")["best"]
            yield {
                "dataset": dataset,
                "method": method,
                "cut_trials": int(within.size().max()),
                **_named("cut", summarise(within.last())),
                "full_trials": spec.settings.trials,
                **_named("full", summarise(own.groupby("seed")["best"].last())),
                "full_cost": cost[dataset, method] / budget,  # in Delta-STN runs
            }


def _named(prefix: str, summary: Summary) -> Row:
    return {f"{prefix}_{name}": value for name, value in summary._asdict().items()}


def longer(protocol: Protocol) -> dict[str, str]:
    """The variants that change nothing but the number of epochs, by their base."""
    chosen = {}
    for name in protocol.run.variants:
        changes = protocol.variants[name].model_dump(exclude_defaults=True, exclude={"base", "datasets", "seeds"})
        if list(changes) == ["epochs"]:
            chosen[str(protocol.variants[name].base)] = name
    return chosen


def budget_study(protocol: Protocol, runs: pd.DataFrame) -> Iterator[Row]:
    """Each method of a longer budget minus Delta-STN after 1, 3, ... epochs of the same runs, paired by seed."""
    reference = longer(protocol).get("delta_stn")
    course = courses(protocol, runs)
    for dataset, of_dataset in course[course["epoch"].isin(EPOCHS)].groupby("dataset", sort=False):
        for method in protocol.run.variants:
            if method == reference or protocol.variants[method].epochs is None:
                continue
            for epoch, group in of_dataset.groupby("epoch"):
                losses = group.pivot(index="seed", columns="method", values="val_loss")
                both = losses.reindex(columns=[method, reference]).dropna()
                if len(both):
                    ours, theirs = both[method], both[reference]
                    yield {
                        **{"dataset": dataset, "method": method, "epoch": epoch},
                        **{"loss": ours.mean(), "delta_stn": theirs.mean()},
                        **_named("difference", summarise(ours - theirs)),
                    }


def transfer(protocol: Protocol, runs: pd.DataFrame) -> Iterator[Row]:
    """Training anew at the values that a method ended at, against the run that found them, paired by seed."""
    for dataset, of_dataset in runs.groupby("dataset", sort=False):
        for method in of_dataset["method"].unique():
            spec = protocol.resolve(RunKey(str(dataset), str(method), 0))
            source = getattr(spec.settings, "values_of", None)
            difference = paired(of_dataset, method, source, LOSS) if source else None
            if difference and difference.n_seeds:
                done = finished(of_dataset)
                common = set(done[done["method"] == method]["seed"]) & set(done[done["method"] == source]["seed"])
                chosen = done[done["seed"].isin(common)]
                row: Row = {"dataset": dataset, "source": source, "retrained": method}
                for name, each in (("tuned", source), ("retrained", method)):
                    row |= _named(name, summarise(chosen[chosen["method"] == each][LOSS]))
                yield {**row, **_named("difference", difference)}


def optimism(runs: pd.DataFrame) -> Iterator[Mapping[str, Any]]:
    """Validation beside test loss of each method: what selection on the validation split has made too good."""
    done = finished(runs)
    for dataset, method, group in by_method(done):
        gap = summarise(group["final_test_loss"] - group["final_val_loss"])
        means = {"val_loss": group["final_val_loss"].mean(), "test_loss": group["final_test_loss"].mean()}
        yield {"dataset": dataset, "method": method, **means, **_named("gap", gap)}
