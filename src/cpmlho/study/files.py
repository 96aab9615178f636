"""Files that are never half-written, and locks on folders."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cpmlho.study.strict import ConfigError

LOCK = ".lock"


def check_folder(setting: str, folder: str | Path, written: bool = False) -> None:
    """Check that a folder can be used, or made if it is not there.

    Args:
        setting: what names the folder, for the message.
        folder: it need not exist.
        written: whether files will be written into it.

    Raises:
        ConfigError: it is a link to nothing, lies in something that is no folder, or may not be used.
    """
    there = Path(folder)
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if os.path.islink(there) and not os.path.exists(there):
        problem = f"is a link to {os.readlink(there)}, which cannot be reached; remove the link"
    elif not os.path.isdir(there):
        problem = "is not a folder; move it away"
    elif not os.access(there, os.X_OK | (os.W_OK if written else 0)):
        problem = f"cannot be {'written' if written else 'entered'}: permission denied; get the right to it"
    else:
        return
    raise ConfigError(f"{setting}: {there} {problem}, or set another {setting}")


def write_text(path: Path, text: str) -> None:
    """Write a text file as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, *content: bytes | memoryview) -> None:
    """Write a file from its parts so that nobody sees it half-written: a temporary name, fsync, rename.

    The temporary file is locked while it is written, which other hosts and containers see as well. A temporary file
    without a lock was left by a killed process, and is removed.

    Raises:
        OSError: it cannot be written; the error names the file, whose former content stays.
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
        error.filename = str(path)  # a full disk names no file, and a temporary name says little
        raise


@contextmanager
def _temporary(path: Path) -> Iterator[BinaryIO]:
    """A new locked file next to another one; it is removed at the end unless it was renamed."""
    there = 0
    while not there:  # another process may remove it before it is locked, as if it were left behind
        with _hidden(path).open("xb") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if there := os.fstat(file.fileno()).st_nlink:
                try:
                    yield file
                finally:
                    Path(file.name).unlink(missing_ok=True)


def write_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Make a folder so that nobody sees it half-filled; it replaces the one that is there.

    Args:
        path: the folder.
        fill: writes into the hidden folder that it is given. Such folders of killed processes are removed.
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
    """A descriptor by which a file or folder can be locked; NFS only locks files that are open for writing."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_left(path: Path) -> None:
    """Remove the temporary files or folders that killed processes left."""
    for left in path.parent.glob(f".{path.name}.*"):
        if re.fullmatch("[0-9a-f]+", left.suffix[1:]):
            with suppress(OSError), _opened(left) as descriptor:  # it is locked, gone, or cannot be locked or removed
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left) if left.is_dir() else left.unlink()


@contextmanager
def locked(folder: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Lock a folder against other processes of this project; the lock ends with the process.

    The lock is on a file open for writing, because NFS locks nothing else. The file stays: to remove it is a race.

    Args:
        folder: it is made if it is not there.
        busy: called if another process holds the lock; it may raise, or return to wait.
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
