"""Fixtures of the study's tests: each test has its own tracking store, and its plug-ins are unregistered after it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cpmlho.__main__ as program
from cpmlho.study import hints, plugins, tracking
from cpmlho.study.tracking import entry
from runs import forget


@pytest.fixture(autouse=True)
def unset_patience() -> Iterator[None]:
    """Restore the environment variables that a tracking store sets, so that commands of other tests do not see them."""
    before = dict(os.environ)
    yield
    for name in entry.ENVIRONMENT:
        os.environ.pop(name, None)
    os.environ |= {name: value for name, value in before.items() if name in entry.ENVIRONMENT}


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with MLflow's empty tables, created once."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    entry.Store(f"sqlite:///{path}", path.parent)
    return path


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of an empty store under `tmp_path`; the environment names no other."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, tmp_path)
    return tracking.tracking_uri(None, tmp_path)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Run the test in `tmp_path`, and unregister its plug-ins afterwards."""
    before = [dict(each) for each in plugins.REGISTRIES]
    monkeypatch.setattr(plugins, "_LOADED", set())
    monkeypatch.chdir(tmp_path)
    yield
    forget(before)


@pytest.fixture
def cpmlho(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str]]]:
    """Return a function that runs a command line in this process; it returns the exit status and standard error."""
    monkeypatch.setattr(hints, "_CONFIGS", [])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def act(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["cpmlho", *map(str, arguments)])
        capfd.readouterr()
        status: Any = 0
        try:
            program.main()
        except SystemExit as end:
            status = end.code or 0
        return status, capfd.readouterr().err

    yield act
    for number, handler in handlers.items():
        signal.signal(number, handler)
