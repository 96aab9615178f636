"""A tracking store of its own for each test, and plug-ins that are forgotten after it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpmlho.study import plugins, tracking
from cpmlho.study.tracking import entry
from runs import forget


@pytest.fixture(autouse=True)
def unset_patience() -> Iterator[None]:
    """What a store of this process sets is no user's setting to the commands that a test starts."""
    before = dict(os.environ)
    yield
    for name in entry.ENVIRONMENT:
        os.environ.pop(name, None)
    os.environ |= {name: value for name, value in before.items() if name in entry.ENVIRONMENT}


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, made once."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    entry.Store(f"sqlite:///{path}", path.parent)
    return path


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty store under `tmp_path`, and no other one."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, tmp_path)
    return tracking.tracking_uri(None, tmp_path)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What a test registers is forgotten after it, and each works in a folder of its own."""
    before = [dict(each) for each in plugins.REGISTRIES]
    monkeypatch.setattr(plugins, "_LOADED", set())
    monkeypatch.chdir(tmp_path)
    yield
    forget(before)
