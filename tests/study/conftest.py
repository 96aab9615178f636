"""A tracking store of its own for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cpmlho.study import tracking
from cpmlho.study.tracking import store


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, made once."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    store.Store(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty store under `tmp_path`, and no other one."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, tmp_path)
    return tracking.tracking_uri(None, tmp_path)
