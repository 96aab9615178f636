"""Programs that the test starts on loopback and stops again: PostgreSQL, and MLflow's server on it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 300.0  # seconds; enough for a busy machine
APT = ("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300")
POSTGRES = "postgres"  # the user of Debian's package; PostgreSQL refuses root


def install(programs: Mapping[str, str]) -> None:
    """Install the Debian packages of missing programs, without starting their services."""
    if missing := sorted({package for program, package in programs.items() if not shutil.which(program)}):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # 1: start no service
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
            subprocess.run([*APT, *command], check=True, env=environment, stdout=subprocess.DEVNULL)


def free_port() -> int:
    """Return a free port of loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(what: str, ready: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until `ready`.

    Raises:
        TimeoutError: it took too long.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.2)


class Service:
    """A program in a process group of its own; a context manager that ends the whole group."""

    def __init__(
        self, log: Path, command: Sequence[str], environment: Mapping[str, str] | None = None, user: str | None = None
    ) -> None:
        self._log, self._command, self._user = log, command, user
        self._environment = os.environ | (environment or {})

    def __enter__(self) -> Service:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(15)
        self.kill()
        self._process.wait()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the group; without a chance to tidy up, as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


@contextmanager
def postgres(folder: Path, password: str) -> Iterator[dict[str, str]]:
    """Run a temporary PostgreSQL on a Unix socket in `folder`.

    Yields:
        The environment in which a client reaches the database `mlflow`: it names the password's file, not the password.
    """
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    folder.mkdir()
    secret, passfile = folder / "password", folder.with_name("pgpass")
    secret.write_text(password)
    passfile.write_text(f"*:*:*:{POSTGRES}:{password}\n")
    passfile.chmod(0o600)
    for path in (folder, secret):
        shutil.chown(path, POSTGRES, POSTGRES)
    data = folder / "data"
    made = [binaries / "initdb", f"--pgdata={data}", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
    subprocess.run(made, check=True, user=POSTGRES, group=POSTGRES, extra_groups=[], capture_output=True, cwd=folder)
    environment = {"PGHOST": str(folder), "PGUSER": POSTGRES, "PGPASSFILE": str(passfile)}
    settings = ("-c", f"unix_socket_directories={folder}", "-c", "listen_addresses=", "-c", "fsync=off")
    command = [str(binaries / "postgres"), "-D", str(data), *settings]
    with Service(folder.with_name("postgres.log"), command, user=POSTGRES):

        def ask(statement: str) -> bool:
            query = ["psql", "--dbname=postgres", "--command", statement]
            return subprocess.run(query, check=False, capture_output=True, env=environment).returncode == 0

        wait_for("PostgreSQL", lambda: ask("SELECT 1"))
        assert ask("CREATE DATABASE mlflow")
        yield environment


class TrackingServer(Service):
    """`mlflow server` on a PostgreSQL, with artifacts sent through the server; it can be killed and restarted."""

    def __init__(self, folder: Path, database: Mapping[str, str]) -> None:
        port = free_port()
        self.uri = f"http://127.0.0.1:{port}"
        program = [str(Path(sys.executable).with_name("mlflow")), "server", "--host=127.0.0.1", "--workers=1"]
        options = [f"--port={port}", f"--artifacts-destination={folder / 'artifacts'}"]
        environment = {
            **database,
            "MLFLOW_BACKEND_STORE_URI": "postgresql:///mlflow",  # user and host come from PGHOST and the like
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        super().__init__(folder / "mlflow.log", [*program, *options], environment)

    def __enter__(self) -> TrackingServer:
        super().__enter__()
        wait_for("the tracking server", self._answers)
        return self

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
