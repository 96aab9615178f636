"""All figures: the paper's two, and what each method has reached after how much work."""

from __future__ import annotations

from pathlib import Path

from cpmlho.config import Protocol
from cpmlho.reporting.aggregate import read_runs
from cpmlho.reporting.curves import draw_curves
from cpmlho.reporting.drawing import look
from cpmlho.reporting.trajectories import draw_trajectories


def write_figures(protocol: Protocol) -> None:
    """Write Figures 1 to 4 as `.png` and `.svg`, and what they draw as `.csv`, under the protocol's results.

    Raises:
        ResultError: a result file is missing or damaged.
    """
    runs, folder = read_runs(protocol), Path(protocol.results_dir) / "figures"
    with look():
        draw_trajectories(protocol, runs, folder)
        draw_curves(protocol, runs, folder)
