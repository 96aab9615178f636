"""Files that a verb writes together, such as all tables: their record, and whether they are still as written."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from cpmlho.study.files import write_text
from cpmlho.study.hints import command
from cpmlho.study.results import ResultError

SUMS = "SHA256SUMS"  # as `sha256sum --check` reads it


def seal(folder: Path, names: Collection[str]) -> None:
    """Record that these files of a folder were written together: write their checksums, as the last file."""
    write_text(folder / SUMS, "".join(f"{_sum(folder / name)}  {name}\n" for name in sorted(names)))


def sealed(folder: Path) -> dict[str, str]:
    """Return the checksums of the files that were written together, by name; empty without a readable record."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    return {name: checksum for checksum, _, name in (line.partition("  ") for line in lines) if name}


def intact(folder: Path, names: Collection[str], verb: str) -> None:
    """Check that files of a folder are as the verb that makes them wrote them, all at once.

    Raises:
        ResultError: some are missing, edited, damaged, or of an attempt that was interrupted.
    """
    if missing := [name for name in names if not (folder / name).exists()]:
        raise ResultError(f"{folder}: no {', '.join(missing)}; make the {verb} first: {command(verb)}")
    record = sealed(folder)
    if other := [name for name in names if record.get(name) != _sum(folder / name)]:
        said = f"{folder}: {', '.join(other)}: not as the rest was written"
        raise ResultError(f"{said}; make the {verb} again: {command(verb)}")


def all_intact(results: Path) -> None:
    """Check all tables and figures of a results folder.

    Raises:
        ResultError: some are missing, or not as they were written.
    """
    for verb in ("tables", "figures"):
        folder = results / verb
        # A protocol may have no run that a figure shows; there are always tables.
        no_figure = verb == "figures" and (folder / SUMS).is_file() and not (folder / SUMS).stat().st_size
        if folder.is_dir() and not no_figure:
            intact(folder, sealed(folder) or [SUMS], verb)


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
