"""Figure 1 of the paper: the dropout rates of MNIST while the network trains, of the methods that have a schedule."""

from __future__ import annotations

from functools import partial

from cpmlho.study.methods import METHODS
from cpmlho.study.report.figures import Picture
from cpmlho.study.report.figures.drawing import PAGE
from cpmlho.study.report.figures.trajectories import DATASET, Plot, Series, data, draw
from cpmlho.study.report.frame import Study
from cpmlho.study.report.style import style_of


def methods_compared(study: Study) -> list[Series]:
    """The methods that have a hyperparameter schedule."""
    runs = study.compared[study.compared["dataset"] == DATASET]
    schedules = {name for name, method in METHODS.items() if method.kind == "schedule"}
    names = runs[runs["algorithm"].isin(schedules)]["method"].unique()
    return [Series(name, *style_of(name), runs[runs["method"] == name]) for name in names]


def _rates(study: Study) -> list[str]:
    datasets = study.protocol.datasets
    return [name for name in datasets[DATASET].hyperparameters if "dropout" in name] if DATASET in datasets else []


PLOT = Plot(1, PAGE, "method", _rates, methods_compared, "Δ-STN and CPMLHO on MNIST", mark=200)
PICTURE = Picture(partial(data, PLOT), partial(draw, PLOT))
