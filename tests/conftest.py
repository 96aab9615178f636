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

# As a run has it: the workers take turns on the cores, and two threads of each would mostly wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"  # of what tests start
torch.set_num_threads(1)

# No test asserts a time, hypothesis's own included; derandomised, so that a failure is found again.
settings.register_profile("project", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


def pytest_xdist_auto_num_workers(config):
    """One more than there are cores: a fifth of the time goes by in waiting for what the tests start and stop."""
    return min(4, (os.cpu_count() or 1) + 1)


@pytest.hookimpl(trylast=True)  # when `-m` and `-k` have chosen
def pytest_collection_modifyitems(items):
    """The longest first, those on the finished smoke protocol before all: workers that are done take from the end."""
    items.sort(
        key=lambda item: (
            "finished" not in item.fixturenames,
            item.path.stem != "test_faults",
            item.get_closest_marker("slow") is None,
        )
    )


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
    """The published runs."""
    return unpacked("published", tmp_path_factory.mktemp("published"))
