"""Files that are whole or not there, of a set that was written together, in folders that one process holds."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LOCK = ".lock"
SUMS = "SHA256SUMS"  # as `sha256sum --check` reads it


def write_text(path: Path, text: str) -> None:
    """Write a file of text, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, *content: bytes | memoryview) -> None:
    """Write a file from its parts so that it is never seen half-written: a temporary name, fsync, rename.

    A temporary file is locked for as long as it is written, which other hosts and containers see too, as they would
    not see a process; one that nobody locks was left by a killed process, and goes.

    Raises:
        OSError: it cannot be written; the error names a file, and what was there before is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left(path)
    try:
        with _temporary(path) as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
    except OSError as error:
        error.filename = str(path)  # a full disk or a limit names none, and the temporary name says little
        raise


@contextmanager
def _temporary(path: Path) -> Iterator[BinaryIO]:
    """A new locked file beside another one; it goes at the end unless it was renamed."""
    there = 0
    while not there:  # another process may have taken it for left behind before it was locked
        with _hidden(path).open("xb") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if there := os.fstat(file.fileno()).st_nlink:
                try:
                    yield file
                finally:
                    Path(file.name).unlink(missing_ok=True)


def write_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Make a folder so that it is never seen half-filled, in the place of the one that is there.

    Args:
        path: the folder.
        fill: is given a hidden folder to write into. What killed processes have left of such folders goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left(path)
    new, old = _hidden(path), _hidden(path)
    new.mkdir()
    try:
        with _opened(new) as descriptor:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fill(new)
        with suppress(FileNotFoundError):
            path.rename(old)
        new.rename(path)
    finally:
        if not path.exists():
            with suppress(FileNotFoundError):
                old.rename(path)
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor of a file or folder, to lock it by; NFS locks files that are open for writing alone."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_left(path: Path) -> None:
    """Remove what killed processes have left of a file or folder that they were writing."""
    for left in path.parent.glob(f".{path.name}.*"):
        if re.fullmatch("[0-9a-f]+", left.suffix[1:]):
            with suppress(OSError), _opened(left) as descriptor:  # locked or gone, or cannot be locked or removed
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def seal(folder: Path, names: Collection[str]) -> None:
    """Say that these files of a folder were written together: their checksums, written last."""
    write_text(folder / SUMS, "".join(f"{_sum(folder / name)}  {name}\n" for name in sorted(names)))


def sealed(folder: Path) -> list[str]:
    """The names of the files that were written together; none where nothing says so."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return []
    return [name for _, _, name in (line.partition("  ") for line in lines) if name]


def unsealed(folder: Path, names: Collection[str]) -> list[str]:
    """Which of these files are not as the others were written: edited, damaged, or of an attempt that was cut short.

    Raises:
        OSError: one cannot be read.
    """
    try:
        sealed = set((folder / SUMS).read_text(encoding="utf-8").splitlines())
    except (FileNotFoundError, UnicodeDecodeError):
        sealed = set()
    return [name for name in names if f"{_sum(folder / name)}  {name}" not in sealed]


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def locked(folder: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Lock a folder against other processes of this project; however a process ends, it lets go.

    The lock is of a file open for writing, as NFS locks nothing else; it stays, as removing it would be a race.

    Args:
        folder: made if there is none.
        busy: called where another process holds it: says so, and this process then waits, or raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as file:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                busy()
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def at_work(folder: Path) -> bool | None:
    """Whether a process has a folder `locked`; None on a file system without locks."""
    try:
        with (folder / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False
