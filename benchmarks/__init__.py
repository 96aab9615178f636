"""The project's own benchmark, `make bench`: no test asserts a time, a benchmark reports it."""

from typing import Any

Row = dict[str, Any]  # of one of its tables, by column
