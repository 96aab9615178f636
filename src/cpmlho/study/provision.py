"""Before a run starts: put its dataset in place, record it in the results, and read the values of another run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from cpmlho.study.arrays import DataError
from cpmlho.study.data import fetch, load
from cpmlho.study.files import locked, write_text
from cpmlho.study.protocol import Protocol
from cpmlho.study.results import data_file, pinned_at, with_values
from cpmlho.study.settings import ARRAYS
from cpmlho.study.spec import RunSpec
from cpmlho.study.strict import ConfigError, unknown


def as_run(spec: RunSpec, results_dir: str | Path) -> RunSpec:
    """Return the specification as it runs: with the pinned checksum of its data, and with the values of another run.

    Raises:
        ResultError: the record of the data, or the other run's result, is missing or damaged.
        ConfigError: a value lies on the bound of its range.
    """
    pinned = pinned_at(results_dir, spec.dataset) if spec.data.reader and not spec.data.sha256 else None
    if pinned:
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"sha256": pinned})})
    return with_values(spec, results_dir)


def provide(protocol: Protocol, name: str, say: Callable[[str], None]) -> None:
    """Fetch and verify a dataset's files, or read it with its reader, and record its checksums in the results.

    The record pins the arrays that a reader returns the first time; later it must return the same ones.

    Raises:
        ConfigError: there is no such dataset.
        DataError: the data cannot be fetched or read, or have changed.
        ResultError: the record is damaged.
        OSError: the data folder cannot be written.
    """
    if name not in protocol.datasets:
        raise ConfigError(unknown(f"dataset {name}", name, protocol.datasets))
    dataset = protocol.datasets[name]
    record = data_file(protocol.results_dir, name)
    sums = _pin(protocol, name, say) if dataset.reader else _verify(protocol, name, say)
    content = json.dumps({"dataset": name, "sha256": sums}, indent=1) + "\n"
    if not record.is_file() or record.read_bytes() != content.encode():  # a newer file would make every run outdated
        write_text(record, content)


def _verify(protocol: Protocol, name: str, say: Callable[[str], None]) -> dict[str, str]:
    """Fetch a dataset's files unless they are in place; return their checksums."""
    dataset = protocol.datasets[name]
    try:
        load(dataset, protocol.data.dir)
        say(f"{name}: four files verified, in place")
    except DataError:
        folder = Path(protocol.data.dir, dataset.folder)
        with locked(folder, lambda: say(f"{folder}: another process is fetching it; waiting")):
            source = fetch(dataset, protocol.data, say)
        say(f"{name}: four files verified, from source {source}")
    return dataset.sha256


def _pin(protocol: Protocol, name: str, say: Callable[[str], None]) -> dict[str, str]:
    """Return the checksum of a reader's arrays; it must equal the configured or the recorded one, if there is one."""
    dataset = protocol.datasets[name]
    pinned = dataset.sha256 or pinned_at(protocol.results_dir, name)
    arrays = load(dataset.model_copy(update={"sha256": pinned or {}, "examples": None}), protocol.data.dir)
    counts = f"{len(arrays.train_labels)} + {len(arrays.test_labels)} examples"
    say(f"{name}: {counts}, their checksum {'verified' if pinned else 'pinned'}")
    return {ARRAYS: arrays.sha256()}
