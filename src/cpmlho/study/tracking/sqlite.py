"""An SQLite store that many processes share: who comes first makes its tables alone; it may be moved."""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

LOCK_SECONDS = 60.0  # creating the tables takes 2 to 7
BUSY_SECONDS = 20.0  # as long as MLflow itself waits for a busy SQLite


@contextmanager
def alone(database: Path | None) -> Iterator[None]:
    """Keep other processes of this project away from an SQLite store; a server (None) sees to that itself."""
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(database.name + ".lock").open("a") as file:
        lock(file)
        yield


def lock(file: IO[str]) -> None:
    """Lock a file until it is closed; a holder that hangs must not hang the others.

    Raises:
        TimeoutError: it stays locked.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{file.name} has been locked for {LOCK_SECONDS:.0f} s") from None
            time.sleep(0.02)


def prepare(database: Path) -> None:
    """Make the tables if there are none; fail at once where MLflow would try for minutes to open what is no database.

    The tables are made elsewhere and copied in one transaction: MLflow cannot go on where a killed process left off.
    """
    from mlflow import MlflowClient

    with closing(_open(database)) as target:
        target.execute("BEGIN IMMEDIATE")
        target.execute("ROLLBACK")
        if target.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            return
        with TemporaryDirectory() as folder:
            MlflowClient(f"sqlite:///{folder}/new.db")
            with closing(sqlite3.connect(f"{folder}/new.db")) as source:
                source.backup(target)


def artifacts(database: Path, experiment: str) -> str:
    """Where an experiment's artifacts lie: beside the database, as MLflow itself has it only if started there."""
    return (database.resolve().parent / "mlruns" / experiment).as_uri()


def relocate(database: Path, prefix: str) -> None:
    """Let the experiments whose names begin with `prefix` have their artifacts beside the database.

    MLflow keeps absolute paths and has no call to change them: after a move it would write to the old place.
    """
    with closing(_open(database)) as connection:
        query = "SELECT experiment_id, name, artifact_location FROM experiments WHERE name LIKE ? || '%'"
        for number, name, old in connection.execute(query, (prefix,)).fetchall():
            new = artifacts(database, name)
            if old == new or not old.startswith("file:") or not old.endswith(f"/mlruns/{name}"):
                continue
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "UPDATE runs SET artifact_uri = ?2 || substr(artifact_uri, length(?1) + 1)"
                " WHERE experiment_id = ?3 AND substr(artifact_uri, 1, length(?1) + 1) = ?1 || '/'",
                (old, new, number),
            )
            connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, number))
            connection.execute("COMMIT")


def _open(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(database, timeout=BUSY_SECONDS, isolation_level=None)
