"""What is found before a run: its dataset, put in place and recorded in the results, and values of another run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from cpmlho.study.arrays import DataError
from cpmlho.study.data import fetch, load
from cpmlho.study.files import locked, write_text
from cpmlho.study.protocol import Protocol
from cpmlho.study.results import ResultError, data_file, with_values
from cpmlho.study.settings import ARRAYS, IDX_FILES
from cpmlho.study.spec import RunSpec
from cpmlho.study.strict import ConfigError


def as_run(spec: RunSpec, results_dir: str | Path) -> RunSpec:
    """The specification with what was found before the run: its data's pinned checksum, and another run's values.

    Raises:
        ResultError: a record is missing or damaged.
        ConfigError: a value lies on the bound of its range.
    """
    pinned = pinned_at(results_dir, spec.dataset) if spec.data.reader and not spec.data.sha256 else None
    if pinned:
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"sha256": pinned})})
    return with_values(spec, results_dir)


def pinned_at(results_dir: str | Path, dataset: str) -> dict[str, str] | None:
    """The checksums in a dataset's record; None if there is no record.

    Raises:
        ResultError: it is damaged.
    """
    path = data_file(results_dir, dataset)
    try:
        return {str(name): str(value) for name, value in json.loads(path.read_text(encoding="utf-8"))["sha256"].items()}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ResultError(f"{path}: damaged; remove it to pin the data that is there now") from None


def provide(protocol: Protocol, name: str, say: Callable[[str], None]) -> None:
    """Fetch and verify a dataset's files, or read it with its reader, and write the record of its checksums.

    The record pins what a reader gives the first time; afterwards it must give the same.

    Raises:
        ConfigError: there is no such dataset.
        DataError: the data cannot be had, or are not what they were.
        ResultError: the record is damaged.
        OSError: the data folder cannot be written.
    """
    if name not in protocol.datasets:
        raise ConfigError(f"unknown dataset {name}; known: {', '.join(protocol.datasets)}")
    dataset = protocol.datasets[name]
    record = data_file(protocol.results_dir, name)
    sums = _pin(protocol, name, say) if dataset.reader else _verify(protocol, name, say)
    content = json.dumps({"dataset": name, "sha256": sums}, indent=1) + "\n"
    if not record.is_file() or record.read_bytes() != content.encode():  # a newer one would make every run stale
        write_text(record, content)


def _verify(protocol: Protocol, name: str, say: Callable[[str], None]) -> dict[str, str]:
    """The checksums of a dataset's files, fetched unless they are in place."""
    dataset = protocol.datasets[name]
    folder = Path(protocol.data.dir, dataset.folder)

    def wait() -> None:
        say(f"{folder}: another process fetches it; waiting")

    if list(_left(folder)):
        with suppress(OSError), locked(folder, wait):  # where nobody may write it stays, and does no harm
            for path in _left(folder):
                shutil.rmtree(path, ignore_errors=True)
    try:
        load(dataset, protocol.data.dir)
        say(f"{name}: four files verified, in place")
    except DataError:
        with locked(folder, wait):
            source = fetch(dataset, protocol.data, say)
        say(f"{name}: four files verified, from source {source}")
    return dataset.sha256


def _left(folder: Path) -> Iterator[Path]:
    """The folders in which `fetch` was writing when it was killed, or is writing now: hidden, of its files alone."""
    for path in folder.glob("raw/.????????"):
        with suppress(OSError):  # a file, another user's, or gone
            if {file.name for file in path.iterdir()} <= set(IDX_FILES):
                yield path


def _pin(protocol: Protocol, name: str, say: Callable[[str], None]) -> dict[str, str]:
    """The checksum of what a dataset's reader gives, which must be the one configured or recorded if one is."""
    dataset = protocol.datasets[name]
    pinned = dataset.sha256 or pinned_at(protocol.results_dir, name)
    arrays = load(dataset.model_copy(update={"sha256": pinned or {}, "examples": None}), protocol.data.dir)
    counts = f"{len(arrays.train_labels)} + {len(arrays.test_labels)} examples"
    say(f"{name}: {counts}, their checksum {'verified' if pinned else 'pinned'}")
    return {ARRAYS: arrays.sha256()}
