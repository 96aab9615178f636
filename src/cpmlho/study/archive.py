"""The archive of a protocol's runs: one compressed file next to its tables, and its checksum."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath

from cpmlho.study.files import locked, write_bytes, write_text
from cpmlho.study.hints import command
from cpmlho.study.results import RESULT, ResultError, own_tables, read_result

ARCHIVE = "runs.tar.xz"
CHECKSUM = f"{ARCHIVE}.sha256"  # as `sha256sum --check` reads it
RUNS = "runs"


def pack(results_dir: str, say: Callable[[str], None]) -> None:
    """Write the archive of all finished runs; the same runs give a bit-identical archive.

    Raises:
        ResultError: there is no finished run, or one is damaged or lacks a table.
    """
    root = Path(results_dir)
    finished = sorted(path.parent for path in (root / RUNS).glob(f"*/*/*/{RESULT}"))
    if not finished:
        raise ResultError(f"{root / RUNS}: no finished run to pack")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        for folder in finished:
            read_result(folder / RESULT)
            for file in sorted([folder / RESULT, *own_tables(folder)]):  # no checkpoint, nothing half-written
                content = file.read_bytes()
                member = tarfile.TarInfo(file.relative_to(root).as_posix())
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    packed = buffer.getvalue()
    write_bytes(root / ARCHIVE, packed)
    write_text(root / CHECKSUM, f"{hashlib.sha256(packed).hexdigest()}  {ARCHIVE}\n")
    say(f"{root / ARCHIVE}: {len(finished)} runs, {len(packed) / 1e6:.1f} MB")


def unpack(results_dir: str, say: Callable[[str], None]) -> None:
    """Write the archived runs that are missing; a run that is already there is not changed.

    Raises:
        ResultError: the archive is missing or damaged.
    """
    root = Path(results_dir)
    with locked(root / RUNS, lambda: say(f"{root / RUNS}: locked by another process; waiting")):
        found, written = 0, 0
        for folder, members in archived(root):
            found += 1
            if not (folder / RESULT).exists():
                written += 1
                for name in sorted(members, key=lambda each: each == RESULT):  # last: it marks a run as complete
                    write_bytes(folder / name, members[name])
    say(f"{root / RUNS}: {found} runs in {ARCHIVE}: {written} unpacked, {found - written} already there")


def archived(root: Path) -> Iterator[tuple[Path, dict[str, bytes]]]:
    """Yield each archived run's folder, and the content of its files by name.

    Raises:
        ResultError: the archive is missing or damaged.
    """
    path = root / ARCHIVE
    try:
        content, checksum = path.read_bytes(), (root / CHECKSUM).read_text(encoding="utf-8").split()[:1]
    except OSError as error:
        raise ResultError(f"{error.filename}: {error.strerror}; make it: {command('pack')}") from None
    if checksum != [hashlib.sha256(content).hexdigest()]:
        raise ResultError(
            f"{path}: damaged: its SHA-256 is not the one in {CHECKSUM}; restore both (git checkout {root}),"
            f" or make them again: {command('pack')}"
        )
    with tarfile.open(fileobj=io.BytesIO(content), mode="r|xz") as tar:
        for parent, members in groupby(tar, lambda member: PurePosixPath(member.name).parent):
            if parent.parts[:1] != (RUNS,) or ".." in parent.parts:
                raise ResultError(f"{path}: {parent} is not the folder of a run")
            names = ((PurePosixPath(member.name).name, tar.extractfile(member)) for member in members)
            yield root / parent, {name: file.read() for name, file in names if file}  # None: a folder, a link
