"""Figure 2 of the paper: dropout0 of CPMLHO on MNIST from other starts."""

from __future__ import annotations

from functools import partial

import seaborn as sns

from cpmlho.study.report.figures import Picture
from cpmlho.study.report.figures.drawing import COLUMN
from cpmlho.study.report.figures.trajectories import DATASET, Plot, Series, data, draw
from cpmlho.study.report.frame import Study
from cpmlho.study.report.style import style_of

RAMP = ["#8CC4E8", style_of("cpmlho").colour, "#002B49"]  # from the lowest start to the highest


def starts_compared(study: Study) -> list[Series]:
    """CPMLHO with nothing changed but dropout0's start, by start."""
    starts = {}
    runs = study.runs[(study.runs["dataset"] == DATASET) & (study.runs["algorithm"] == "cpmlho")]
    for method, group in runs.groupby("method", sort=False):
        changes = study.spec(DATASET, str(method)).changes
        if list(changes) == ["start"] and list(changes["start"]) == ["dropout0"]:
            starts[changes["start"]["dropout0"]] = group
    colours = sns.blend_palette(RAMP, len(starts)).as_hex() if starts else []
    return [
        Series(start, f"start {start:g}", colour, "-", starts[start])
        for start, colour in zip(sorted(starts), colours, strict=True)
    ]


WANTED = "CPMLHO on MNIST from other starts of dropout0"
PLOT = Plot(2, COLUMN, "start", lambda study: ["dropout0"], starts_compared, WANTED, (0.025, 0.075))
PICTURE = Picture(partial(data, PLOT), partial(draw, PLOT))
