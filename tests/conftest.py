"""Settings and fixtures that all tests share."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from cpmlho.study.data import fetch
from cpmlho.study.protocol import load
from runs import unpacked

ROOT = Path(__file__).parents[1]

# One thread, as in a run: the workers share the cores, and two threads of each would mostly wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
torch.set_num_threads(1)

# No deadline, because no test asserts a time; derandomised, so that a failure repeats.
settings.register_profile("project", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


def pytest_xdist_auto_num_workers(config):
    """Return one more than the cores, at most 4: a fifth of the time is spent waiting for other processes."""
    return min(4, (os.cpu_count() or 1) + 1)


@pytest.hookimpl(trylast=True)  # after `-m` and `-k` have selected
def pytest_collection_modifyitems(items):
    """Sort long tests to the front, first those on the finished smoke protocol, so that no worker ends alone."""
    items.sort(
        key=lambda item: (
            "finished" not in item.fixturenames,
            item.path.stem != "test_faults",
            item.get_closest_marker("slow") is None,
        )
    )


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Return the smoke protocol, with its data written."""
    folder = tmp_path_factory.mktemp("data")
    overrides = {"data": {"dir": str(folder), "folder": str(ROOT / "tests/data")}}
    protocol = load([ROOT / "config.yaml", ROOT / "tests/smoke.yaml"], overrides)
    for dataset in protocol.datasets.values():
        fetch(dataset, protocol.data, lambda line: None)
    return protocol


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Return a folder with the published runs."""
    return unpacked("published", tmp_path_factory.mktemp("published"))
