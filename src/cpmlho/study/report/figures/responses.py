"""Test loss by the way the response is learned: Δ-STN, planes and other options, with the values that each found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cpmlho.study.report.figures.drawing import panels
from cpmlho.study.report.frame import MISSING, Study
from cpmlho.study.report.rules import PAPERS
from cpmlho.study.report.selection import responses, specs, untuned_beside
from cpmlho.study.report.stats import summarise
from cpmlho.study.report.style import label_of, style_of

RUN = ["method", "seed", "test_loss"]
WORDS = {  # of what an option changes; other settings are named as in the configuration
    ("cutting_planes", True): "cutting planes",
    ("response", "temperature"): "temperature",
    ("response_start", "weights"): "R starts at W",
    ("response_weights", "frozen"): "R frozen",
    ("response_weights", "mean"): "R is the mean of W",
    ("response_weights", "tied"): "R tied to W",
}
LATE = {"warm_up": "tuning after {} epochs", "warm_up_steps": "tuning after {} iterations"}


def data(study: Study) -> pd.DataFrame:
    """A row for each run: the test loss of tuning with each option, and of training at the values that it found.

    A run that diverged has no test loss.
    """
    every, rows, untuned = specs(study.protocol), [], {}
    for option in responses(every):
        label = option_label(option.spec.algorithm, option.changes)
        rows += _losses(study, option.dataset, label, {"tuning": option.spec.method, "values found": option.found})
        untuned[option.dataset, untuned_beside(every, option.spec)] = label_of("fixed")
    for (dataset, method), label in untuned.items():
        rows += _losses(study, dataset, label, {"no tuning": method})
    return pd.DataFrame(rows)


def _losses(study: Study, dataset: str, option: str, runs: dict[str, str]) -> list[dict[str, Any]]:
    ended = study.runs[(study.runs["dataset"] == dataset) & (study.runs["status"] != MISSING)]
    losses = ended.assign(test_loss=ended["final_test_loss"].where(ended["status"] == "done"))
    return [
        {"dataset": dataset, "option": option, "training": training, **dict(zip(RUN, record, strict=True))}
        for training, method in runs.items()
        for record in losses.loc[losses["method"] == method, RUN].itertuples(index=False)
    ]


def option_label(algorithm: str, changes: dict[str, Any]) -> str:
    """An option in words: what it changes of Δ-STN, or the label of a method of its own."""
    if not changes:
        return label_of(algorithm)
    usual = {name: LATE.get(name, f"{name.replace('_', ' ')} {{}}").format(value) for name, value in changes.items()}
    return ", ".join(WORDS.get((name, value), usual[name]) for name, value in changes.items())


def draw(study: Study, data: pd.DataFrame) -> Figure:
    """A panel for each dataset, a line for each option: tuning above, training at the values found below it."""
    datasets = list(data["dataset"].unique())
    lines = int(data.groupby("dataset")["option"].nunique().max())
    figure, row = panels([study.protocol.datasets[name].folder for name in datasets], 0.9 + 0.34 * lines)
    for axes, dataset in zip(row, datasets, strict=True):
        own = data[data["dataset"] == dataset]
        options = list(own["option"].unique())
        for height, option in enumerate(options):
            _line(axes, height, own[own["option"] == option])
        diverged = own["test_loss"].isna().groupby(own["option"]).sum()
        labels = [f"{option}\n({diverged[option]} diverged)" if diverged[option] else option for option in options]
        axes.set_yticks(range(len(options)), labels)
        axes.set_ylim(len(options) - 0.5, -0.5)
        axes.set_xlabel("final test loss")
    handles = {label: handle for axes in row for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=len(handles))
    return figure


LOOKS = {  # where a kind of training stands on the line of its option, and how
    "tuning": (-0.16, style_of(PAPERS).colour, "tuning while training"),
    "values found": (0.16, style_of("fixed").colour, "trained at the values found"),
    "no tuning": (0.0, "#000000", "no tuning"),
}


def _line(axes: Axes, height: float, rows: pd.DataFrame) -> None:
    """A faint dot for each seed, with mean and 95 % interval."""
    for training, runs in rows.groupby("training", sort=False):
        shift, colour, label = LOOKS[str(training)]
        y, losses = height + shift, runs["test_loss"].dropna()
        found = summarise(losses)
        axes.plot(losses, np.full(len(losses), y), "o", color=colour, markersize=3, alpha=0.45, markeredgewidth=0)
        axes.plot([found.ci_low, found.ci_high], [y, y], color=colour, linewidth=1.2)
        axes.plot(found.mean, y, "|", color=colour, markersize=8, markeredgewidth=1.8, label=label)
