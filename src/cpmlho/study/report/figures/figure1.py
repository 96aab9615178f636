"""Figure 1 of the paper: the dropout rates of MNIST while the network trains, of the methods that have a schedule."""

from __future__ import annotations

from functools import partial

from cpmlho.study.methods import METHODS
from cpmlho.study.report.figures import Picture
from cpmlho.study.report.figures.trajectories import DATASET, FOLDER, Panel, Plot, Series, data, draw
from cpmlho.study.report.frame import Study
from cpmlho.study.report.style import quantity_name, style_of


def panels(study: Study) -> list[Panel]:
    """A panel for each dropout rate, with the methods that have a hyperparameter schedule."""
    runs = study.compared[study.compared["dataset"] == DATASET]
    schedules = {name for name, method in METHODS.items() if method.kind == "schedule"}
    names = runs[runs["algorithm"].isin(schedules)]["method"].unique()
    series = [Series(*style_of(name), runs[runs["method"] == name]) for name in names]
    datasets = study.protocol.datasets
    rates = [name for name in datasets[DATASET].hyperparameters if "dropout" in name] if DATASET in datasets else []
    return [Panel(f"{FOLDER}, {quantity_name(rate).lower()}", rate, series) for rate in rates]


PLOT = Plot(1, panels, "Δ-STN and CPMLHO on MNIST", mark=200)
PICTURE = Picture(partial(data, PLOT), partial(draw, PLOT))
