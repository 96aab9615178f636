"""Files that are never half-written, and locks on folders."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cpmlho.study.strict import ConfigError

LOCK = ".lock"


def check_folder(setting: str, folder: str | Path, written: bool = False) -> None:
    """Check that a folder can be used, or created if it does not exist.

    Args:
        setting: the setting that names the folder, for the message.
        folder: it need not exist.
        written: whether files will be written into it.

    Raises:
        ConfigError: it is a dangling link, it or a parent is not a folder, or permission is denied.
    """
    there = Path(folder)
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if os.path.islink(there) and not os.path.exists(there):
        problem = f"is a link to {os.readlink(there)}, which cannot be reached; remove the link"
    elif not os.path.isdir(there):
        problem = "is not a folder; move it away"
    elif not os.access(there, os.X_OK | (os.W_OK if written else 0)):
        problem = f"cannot be {'written' if written else 'entered'}: permission denied; change its permissions"
    else:
        return
    raise ConfigError(f"{setting}: {there} {problem}, or set another {setting}")


def write_text(path: Path, text: str) -> None:
    """Write a text file as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, *content: bytes | memoryview) -> None:
    """Write a file from its parts, so that nobody sees it half-written: a temporary name, fsync, rename.

    The temporary file is locked while it is written, which other hosts and containers see too. A temporary file without
    a lock was left by a killed process, and is removed.

    Raises:
        OSError: it cannot be written; the error names the file, which is unchanged.
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
    """Open a new, locked file next to another one; it is removed at the end unless it was renamed."""
    while True:
        with path.with_name(f".{path.name}.{secrets.token_hex(4)}").open("xb") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if not os.fstat(file.fileno()).st_nlink:  # another process took it for left behind before it was locked
                continue
            try:
                yield file
            finally:
                Path(file.name).unlink(missing_ok=True)
            return


def _remove_left(path: Path) -> None:
    """Remove the temporary files that killed processes left next to a file."""
    for left in path.parent.glob(f".{path.name}.*"):
        if re.fullmatch("[0-9a-f]+", left.suffix[1:]):
            # An error means that it is locked, gone, or of another user. NFS locks only what is open for writing.
            with suppress(OSError), left.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()


@contextmanager
def locked(folder: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Lock a folder against other processes of this project; the lock ends with the process.

    The lock is on a file that is open for writing, because NFS locks nothing else. The file stays, because removing it
    would be a race.

    Args:
        folder: it is created if it does not exist.
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
    """Return whether a process has a folder `locked`; None on a file system without locks."""
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
