"""All figures: the paper's two, and what each method has reached after how much work."""

from __future__ import annotations

from pathlib import Path

from cpmlho.study.protocol import Protocol
from cpmlho.study.report.aggregate import read_runs
from cpmlho.study.report.curves import draw_curves
from cpmlho.study.report.drawing import look
from cpmlho.study.report.trajectories import draw_trajectories


def write_figures(protocol: Protocol) -> None:
    """Write Figures 1 to 4 as `.png` and `.svg`, and what they draw as `.csv`, under the protocol's results.

    Raises:
        ResultError: a result file is missing or damaged.
    """
    runs, folder = read_runs(protocol), Path(protocol.results_dir) / "figures"
    with look():
        draw_trajectories(protocol, runs, folder)
        draw_curves(protocol, runs, folder)
