"""MLflow as a view of the runs: written while they go, rebuilt from their files, never a reason for a run to fail."""

from cpmlho.study.tracking.place import tracking_uri
from cpmlho.study.tracking.process import TrackerProcess
from cpmlho.study.tracking.replay import log_run, log_summary, track, ui_link
from cpmlho.study.tracking.tracker import Tracker

__all__ = ["Tracker", "TrackerProcess", "log_run", "log_summary", "track", "tracking_uri", "ui_link"]
