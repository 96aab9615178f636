"""Settings and fixtures that all tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

from cpmlho.study.archive import ARCHIVE, CHECKSUM, unpack
from cpmlho.study.data import fetch
from cpmlho.study.protocol import load

ROOT = Path(__file__).parents[1]

# No test asserts a time, hypothesis's own included; derandomised, so that a failure is found again.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The smoke protocol with its data in place."""
    folder = tmp_path_factory.mktemp("data")
    overrides = {"data": {"dir": str(folder), "folder": str(ROOT / "tests/data")}}
    protocol = load([ROOT / "config.yaml", ROOT / "tests/smoke.yaml"], overrides)
    for dataset in protocol.datasets.values():
        fetch(dataset, protocol.data, lambda line: None)
    return protocol


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """The results of the published protocol, with its runs unpacked and without what was made of them."""
    folder = tmp_path_factory.mktemp("published")
    for name in (ARCHIVE, CHECKSUM):
        (folder / name).symlink_to(ROOT / "docs" / "results" / name)
    unpack(str(folder), lambda line: None)
    return folder
