"""A dataset put in place before its first run, and the record of it in the results."""

from __future__ import annotations

import json
from collections.abc import Callable

from cpmlho.study.arrays import DataError
from cpmlho.study.data import fetch, load
from cpmlho.study.files import write_text
from cpmlho.study.protocol import Protocol
from cpmlho.study.results import data_file, pinned_at
from cpmlho.study.settings import ARRAYS
from cpmlho.study.strict import ConfigError


def provide(protocol: Protocol, name: str, say: Callable[[str], None]) -> None:
    """Fetch and verify a dataset's files, or read it with its reader, and write the record of its checksums.

    The record pins what a reader gives the first time; afterwards it must give the same.

    Raises:
        ConfigError: there is no such dataset.
        DataError: the data cannot be had, or are not what they were.
        ResultError: the record is damaged.
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
    try:
        load(dataset, protocol.data.dir)
        say(f"{name}: four files verified, in place")
    except DataError:
        source = fetch(dataset, protocol.data, say)
        say(f"{name}: four files verified, from source {source}")
    return dataset.sha256


def _pin(protocol: Protocol, name: str, say: Callable[[str], None]) -> dict[str, str]:
    """The checksum of what a dataset's reader gives, which must be the one configured or recorded if one is."""
    dataset = protocol.datasets[name]
    pinned = dataset.sha256 or pinned_at(protocol.results_dir, name)
    arrays = load(dataset.model_copy(update={"sha256": pinned or {}, "examples": None}), protocol.data.dir)
    counts = f"{len(arrays.train_labels)} + {len(arrays.test_labels)} examples"
    say(f"{name}: {counts}, their checksum {'verified' if pinned else 'pinned'}")
    return {ARRAYS: arrays.sha256()}
