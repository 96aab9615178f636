"""Programs that the test starts for itself, on loopback alone, and ends again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PATIENCE = 300.0  # seconds; on a machine that is busy with something else, everything takes long
APT = ("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300")


def install(programs: Mapping[str, str]) -> None:
    """Install the Debian packages of the programs that are missing, without starting a service of the system's.

    Args:
        programs: the package of each program.

    Raises:
        subprocess.CalledProcessError: a package cannot be had.
    """
    missing = sorted({package for program, package in programs.items() if not shutil.which(program)})
    if not missing:
        return
    print(f"Installing {', '.join(missing)}", flush=True)
    # RUNLEVEL=1: what invoke-rc.d starts nothing at.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
        subprocess.run([*APT, *command], check=True, env=environment, stdout=subprocess.DEVNULL)


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(what: str, ready: Callable[[], bool], seconds: float = PATIENCE) -> None:
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
    """A program in the foreground, in a process group of its own; a context manager that ends all of the group.

    Args:
        log: takes what it prints.
        command: to start it.
        environment: added to this process's.
        user: to run as.
    """

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
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(15)
        self.kill()

    def kill(self) -> None:
        """End it without a chance to tidy up, as a crash would."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
