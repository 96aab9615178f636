"""The tables along many runs, read at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path

import pandas as pd

from cpmlho.study.results import COLUMNS, WHOLE, damaged, read_rows, run_dir
from cpmlho.study.spec import RunKey

KEY = list(RunKey._fields)


def read_along(results_dir: str, keys: Sequence[RunKey], name: str) -> Iterator[pd.DataFrame]:
    """One table of each run, those with the same columns parsed at once, which is ten times quicker.

    Raises:
        ResultError: a run has no such table, or it is damaged.
    """
    alike: dict[str, list[str]] = {}
    paths = [run_dir(results_dir, key) / name for key in keys]
    for key, path in zip(keys, paths, strict=True):
        try:
            header, *lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            header, lines = "", []
        if not COLUMNS[name] <= {*header.split(",")} or {line.count(",") for line in lines} - {header.count(",")}:
            read_rows(path)  # says what is wrong
        alike.setdefault(header, []).extend(f"{key.dataset},{key.method},{key.seed},{line}" for line in lines)
    for header, lines in alike.items():
        if lines:
            yield _numbers("\n".join([f"{','.join(KEY)},{header}", *lines]), paths)


def _numbers(text: str, paths: Sequence[Path]) -> pd.DataFrame:
    """The rows, with numbers where numbers must be; otherwise the file that lacks them is named."""
    try:
        rows = pd.read_csv(StringIO(text), index_col=False, keep_default_na=False, na_values=["nan"])
        kinds = {column: rows[column].dtype.kind for column in rows.columns[len(KEY) :] if column != "status"}
        wrong = [column for column, kind in kinds.items() if kind not in ("i" if column in WHOLE else "if")]
    except ValueError as error:
        wrong = [str(error)]
    if wrong:
        for path in paths:
            read_rows(path)
        raise damaged(paths[0], ", ".join(wrong))
    return rows
