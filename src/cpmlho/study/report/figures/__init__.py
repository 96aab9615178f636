"""The registry of figures: to add one, add its file, its caption (`NAME.rst`) and its entry here.

Nothing here imports matplotlib or pandas, because the workflow reads the names before every command.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from cpmlho.study.protocol import Protocol
from cpmlho.study.report import selection

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from cpmlho.study.report.frame import Study

KINDS = ("png", "svg", "csv")


class About(NamedTuple):
    """A figure in words, and the runs of a protocol that it draws."""

    title: str
    alt: str  # instead of the picture, for a reader who cannot see it
    runs: Callable[[selection.Specs], object]  # empty if the protocol has none; then the figure is not made


FIGURES = {
    "forest": About(
        "CPMLHO minus its own baseline and other methods",
        "For each dataset and reading of CPMLHO, its final validation loss minus that of its own baseline, of training"
        " without tuning and of the searches: points with 95 % intervals, the paper's differences as diamonds.",
        selection.comparisons,
    ),
    "figure1": About(
        "Dropout rates of the MNIST network during training",
        "A row for each reading of CPMLHO, a panel for each of the three dropout rates: the rate against hyperparameter"
        " updates for CPMLHO and its own baseline, as mean, interval and single seeds.",
        selection.schedules,
    ),
    "figure2": About(
        "Dropout0 of CPMLHO from other start values",
        "A row for each reading of CPMLHO: dropout0 on MNIST against hyperparameter updates for every seed from each"
        " start value, with the final values beside it and the band around 0.05 where the paper says that they end.",
        selection.starts,
    ),
    "figure3": About(
        "Best validation loss so far against gradients",
        "For each dataset, the best validation loss so far against the number of batch gradients, for every method:"
        " median over seeds and the interquartile band.",
        selection.searches,
    ),
    "step_size": About(
        "Each method at other learning rates",
        "For each dataset, the final validation loss against the final training loss, both minus those of Δ-STN at the"
        " protocol's learning rate: a curve for each method, a marker for each learning rate.",
        selection.rates,
    ),
    "specification_curve": About(
        "CPMLHO under other readings of the paper",
        "For each dataset and network, the final validation loss of every specification of CPMLHO minus that of its"
        " own baseline and minus that of Δ-STN, with intervals, above a grid of the choices that it makes.",
        selection.specifications,
    ),
    "tuning_pays": About(
        "When does tuning pay?",
        "For each dataset, the test loss of each method minus that of training without tuning, against the number of"
        " training examples: mean and 95 % interval.",
        selection.sizes,
    ),
    "outcomes": About(
        "What each method ends at",
        "For each dataset, a line for each method and variant, lowest first: a dot for the test loss of each seed, mean"
        " and 95 % interval, and in grey those of training at the values that the method found.",
        selection.outcomes,
    ),
    "responses": About(
        "How each response moves the dropout rates",
        "A panel for each dropout rate and one for the validation loss, against training iterations: a line for each"
        " response and for each part of CPMLHO, the mean over seeds.",
        selection.responses,
    ),
}


class Picture(NamedTuple):
    """What a figure draws, and how."""

    data: Callable[[Study], pd.DataFrame]
    draw: Callable[[Study, pd.DataFrame], Figure]


def made_by(protocol: Protocol) -> list[str]:
    """The figures that a protocol has runs for."""
    specs = selection.specs(protocol)
    return [name for name, about in FIGURES.items() if about.runs(specs)]


def caption(name: str) -> str:
    """A figure's caption, which explains every mark."""
    return " ".join((files(__name__) / f"{name}.rst").read_text(encoding="utf-8").split())


def load(name: str) -> Picture:
    """The functions `data` and `draw` of a figure's module."""
    module = import_module(f"{__name__}.{name}")
    return Picture(module.data, module.draw)
