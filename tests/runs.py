"""What the tests of runs share."""

import json

from cpmlho.study.report.equality import TIMES
from cpmlho.study.results import RESULT, read_rows


def content(folder):
    """A run's files without times, each byte of the rest."""
    tables = {
        path.name: [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(path)]
        for path in folder.glob("*.csv")
    }
    result = json.loads((folder / RESULT).read_text())
    return tables, {k: v for k, v in result.items() if k not in TIMES}
