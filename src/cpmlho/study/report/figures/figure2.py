"""Figure 2 of the paper: dropout0 of CPMLHO on MNIST from other starts, a panel for each reading that ran with them."""

from __future__ import annotations

from functools import partial

import seaborn as sns

from cpmlho.study.report.figures import Picture
from cpmlho.study.report.figures.trajectories import DATASET, FOLDER, Panel, Plot, Series, data, draw
from cpmlho.study.report.frame import Study
from cpmlho.study.report.rules import rules
from cpmlho.study.report.style import style_of

RAMP = ["#8CC4E8", style_of("cpmlho").colour, "#002B49"]  # from the lowest start to the highest


def panels(study: Study) -> list[Panel]:
    """The readings of CPMLHO, each with nothing changed but dropout0's start, by start."""
    found = [
        Panel(f"{FOLDER}, dropout0, {reading.name}", "dropout0", starts_compared(study, reading.method))
        for reading in rules().readings
    ]
    return [panel for panel in found if panel.series]


def starts_compared(study: Study, algorithm: str) -> list[Series]:
    """The starts of one reading."""
    starts = {}
    runs = study.runs[(study.runs["dataset"] == DATASET) & (study.runs["algorithm"] == algorithm)]
    for method, group in runs.groupby("method", sort=False):
        changes = study.spec(DATASET, str(method)).changes
        if list(changes) == ["start"] and list(changes["start"]) == ["dropout0"]:
            starts[changes["start"]["dropout0"]] = group
    colours = sns.blend_palette(RAMP, len(starts)).as_hex() if starts else []
    return [
        Series(f"start {start:g}", colour, "-", starts[start])
        for start, colour in zip(sorted(starts), colours, strict=True)
    ]


WANTED = "CPMLHO on MNIST from other starts of dropout0"
PLOT = Plot(2, panels, WANTED, ending=(0.025, 0.075))
PICTURE = Picture(partial(data, PLOT), partial(draw, PLOT))
