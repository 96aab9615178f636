"""The registry of figures: to add one, add its file and its entry here.

Nothing here imports matplotlib, as the workflow reads the names before every command, and the page the words.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from cpmlho.study.report.frame import Study

KINDS = ("png", "svg", "csv")


class Words(NamedTuple):
    """What is said of a figure, and in its place to whom it cannot be shown."""

    title: str
    alt: str


FIGURES = {
    "forest": Words(
        "CPMLHO minus each other method",
        "For each dataset the final validation loss of CPMLHO minus that of each other method, as a point with its 95 %"
        " interval, with the difference that the paper prints as a diamond.",
    ),
    "specification_curve": Words(
        "Every reading of CPMLHO minus Δ-STN",
        "For each dataset the final validation loss of CPMLHO minus Δ-STN's in each reading, sorted, with intervals,"
        " which are admissible and which diverged, and below it a grid of the choices that each makes.",
    ),
    "step_size": Words(
        "Each method at other learning rates",
        "For each dataset the validation loss against the training loss at the end, both minus Δ-STN's, of each method"
        " at every learning rate that it ran with, as a curve through its rates.",
    ),
    "figure1": Words(
        "The paper's Figure 1: dropout rates of MNIST against hyperparameter updates",
        "Three panels, one for each dropout rate of the MNIST network, with the rate against hyperparameter updates for"
        " each method: mean over seeds, its interval, each seed faint, and update 200 marked.",
    ),
    "figure2": Words(
        "The paper's Figure 2: dropout0 of CPMLHO from other starts",
        "For each reading of CPMLHO, dropout0 on MNIST against hyperparameter updates, logarithmic, from starts of 0.1,"
        " 0.2, 0.5 and 0.8, with the band of rates around 0.05 where the paper says that they end.",
    ),
    "figure3": Words(
        "Anytime: best validation loss so far against the work spent",
        "For each dataset, best validation loss so far against training seconds and against batch gradients, of every"
        " method: median over seeds and the interquartile band.",
    ),
    "figure4": Words(
        "Longer budgets: validation loss by epoch, minus Δ-STN's",
        "Validation loss minus Δ-STN's by epoch in runs longer than the protocol's: mean over seeds and its interval.",
    ),
}


class Picture(NamedTuple):
    """What a figure draws, and how."""

    data: Callable[[Study], pd.DataFrame]
    draw: Callable[[Study, pd.DataFrame], Figure]


def load(name: str) -> Picture:
    """The figure that a module of this package declares as `PICTURE`."""
    picture: Picture = import_module(f"{__name__}.{name}").PICTURE
    return picture
