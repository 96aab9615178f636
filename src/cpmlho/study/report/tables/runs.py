"""Every run that the protocol asks for, a row each; the page shows them in groups."""

from cpmlho.study.report.frame import read_runs
from cpmlho.study.report.tables import Table

TABLE = Table(lambda study: read_runs(study.protocol), lambda study, frame: [])
