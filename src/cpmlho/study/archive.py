"""The archive of a published protocol's runs: one compressed file beside its tables, with its checksum."""

from __future__ import annotations

import hashlib
import io
import lzma
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
    """Write the archive of all finished runs, the same bytes for the same runs.

    Raises:
        ResultError: there is no finished run, or one is damaged or without one of its tables.
    """
    root = Path(results_dir)
    finished = sorted(path.parent for path in (root / RUNS).glob(f"*/*/*/{RESULT}"))
    if not finished:
        raise ResultError(f"{root / RUNS}: no finished run to pack")
    for folder in finished:
        read_result(folder / RESULT)
    buffer = io.BytesIO()
    with lzma.open(buffer, "wb") as compressed, tarfile.open(fileobj=compressed, mode="w") as tar:
        for file in (file for folder in finished for file in _files(folder)):
            content = file.read_bytes()
            member = tarfile.TarInfo(file.relative_to(root).as_posix())
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    content = buffer.getvalue()
    write_bytes(root / ARCHIVE, content)
    write_text(root / CHECKSUM, f"{hashlib.sha256(content).hexdigest()}  {ARCHIVE}\n")
    say(f"{root / ARCHIVE}: {len(finished)} runs, {len(content) / 1e6:.1f} MB")


def unpack(results_dir: str, say: Callable[[str], None]) -> None:
    """Write the files of the archive's runs that are not there; a run that is there stays as it is.

    Raises:
        ResultError: the archive is missing, or damaged.
    """
    root = Path(results_dir)
    with locked(root / RUNS, lambda: say(f"{root / RUNS}: locked by another process; waiting")):
        found, written = 0, 0
        for folder, members in archived(root):
            found += 1
            if not (folder / RESULT).exists():
                written += 1
                for name, content in sorted(members, key=lambda each: each[0] == RESULT):  # which says it is complete
                    write_bytes(folder / name, content)
    say(f"{root / RUNS}: {found} runs in {ARCHIVE}, {written} unpacked, {found - written} were there")


def _files(folder: Path) -> list[Path]:
    """A run's result and tables; not its checkpoint, and nothing half-written."""
    return sorted([folder / RESULT, *own_tables(folder)])


def archived(root: Path) -> Iterator[tuple[Path, list[tuple[str, bytes]]]]:
    """Each run's folder with its files, by name.

    Raises:
        ResultError: the archive is missing, or damaged.
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
    with lzma.open(io.BytesIO(content)) as compressed, tarfile.open(fileobj=compressed, mode="r|") as tar:
        for parent, members in groupby(tar, lambda member: PurePosixPath(member.name).parent):
            if parent.parts[0] != RUNS or ".." in parent.parts:
                raise ResultError(f"{path}: {parent} is no folder of a run")
            yield root / parent, [(PurePosixPath(each.name).name, _content(tar, each)) for each in members]


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""
