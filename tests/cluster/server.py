"""A tracking server as a team would have it: `mlflow server` on PostgreSQL, artifacts through the server."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.services import Service, free_port, wait_for

PROGRAMS = {"pg_createcluster": "postgresql"}  # psql alone may be a client
USER = "postgres"  # of Debian's package; PostgreSQL refuses root


def binaries() -> Path:
    """The folder with PostgreSQL's programs, which Debian keeps from the PATH."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


@contextmanager
def postgres(folder: Path, password: str) -> Iterator[dict[str, str]]:
    """A throw-away cluster on a Unix socket in `folder`, for as long as the context lasts.

    Yields:
        The environment in which a client reaches the database `mlflow`: it says where the password is, not what.
    """
    folder.mkdir()
    secret, passfile = folder / "password", folder / "pgpass"
    secret.write_text(password)
    passfile.write_text(f"*:*:*:{USER}:{password}\n")
    for path in (folder, secret, passfile):
        path.chmod(0o700 if path.is_dir() else 0o600)
        shutil.chown(path, USER, USER)
    data = folder / "data"
    made = [binaries() / "initdb", f"--pgdata={data}", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
    subprocess.run(made, check=True, user=USER, group=USER, extra_groups=[], capture_output=True, cwd=folder)
    shutil.copy(passfile, folder.with_name("pgpass"))  # for a client that is another user
    environment = {"PGHOST": str(folder), "PGUSER": USER, "PGPASSFILE": str(folder.with_name("pgpass"))}
    settings = (f"unix_socket_directories={folder}", "listen_addresses=", "fsync=off")
    command = [str(binaries() / "postgres"), "-D", str(data), *(part for each in settings for part in ("-c", each))]
    with Service(folder.with_name("postgres.log"), command, user=USER):

        def ask(statement: str) -> int:
            query = ["psql", "--dbname=postgres", "--command", statement]
            return subprocess.run(query, check=False, capture_output=True, env=environment).returncode

        wait_for("PostgreSQL", lambda: ask("SELECT 1") == 0)
        if ask("CREATE DATABASE mlflow"):
            raise RuntimeError("PostgreSQL: the database cannot be made")
        yield environment


class TrackingServer:
    """`mlflow server` on a PostgreSQL; it can be killed and started again at the same address.

    Args:
        folder: for its log and the artifacts.
        database: the environment that PostgreSQL's clients need.
    """

    def __init__(self, folder: Path, database: dict[str, str]) -> None:
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self.log = folder / "mlflow.log"
        self.artifacts = folder / "artifacts"
        program = [str(Path(sys.executable).with_name("mlflow")), "server", "--host=127.0.0.1"]
        options = [f"--port={self._port}", f"--artifacts-destination={self.artifacts}", "--workers=1"]
        environment = database | {
            "MLFLOW_BACKEND_STORE_URI": "postgresql:///mlflow",  # who and where from PGHOST and the like
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a dozen processes for what nobody asks here
        }
        self._service = Service(self.log, [*program, *options], environment)

    def __enter__(self) -> TrackingServer:
        self.start()
        return self

    def start(self) -> None:
        """Start it, again after `kill`, and wait until it answers."""
        self._service.__enter__()
        wait_for("the tracking server", self.answers)

    def __exit__(self, *_: object) -> None:
        self._service.__exit__()

    def kill(self) -> None:
        """End it as a crash would."""
        self._service.kill()

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
