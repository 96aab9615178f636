"""The checkpoint, from which an interrupted run resumes: one file, replaced atomically after each evaluation.

Its first line is JSON with the identity of the run and the SHA-256 of the rest. `torch.load` reads the rest with
`weights_only`, so that no code in the file is executed.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from cpmlho.study.events import State
from cpmlho.study.files import write_bytes
from cpmlho.study.harness.record import Record

CHECKPOINT = "checkpoint.pt"


class Checkpoint:
    """The checkpoint of one run.

    Args:
        folder: the run's folder.
        identity: what must be unchanged for a run to resume, by name: settings, versions, device and so on.
        say: prints a line.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], say: Callable[[str], None]) -> None:
        self._path = folder / CHECKPOINT
        self._identity, self._say = identity, say

    def read(self, device: torch.device) -> tuple[Record, State] | None:
        """Return the record and the method's state.

        None if there is no checkpoint, or if it is damaged or from a different run, which this reports on one line.
        """
        try:
            first, _, payload = self._path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        reason = "it is damaged"
        with suppress(RuntimeError, UnpicklingError, AttributeError, TypeError, KeyError, ValueError):
            header = json.loads(first)
            other = [name for name, value in self._identity.items() if header["identity"].get(name) != value]
            if other:
                reason = f"it was made under other {' and '.join(other)}"
            elif header["sha256"] == hashlib.sha256(payload).hexdigest():
                reason = "it holds something else"
                content = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
                return Record.model_validate_json(content["record"]), content["state"]
        self._say(f"{self._path}: ignoring this checkpoint, restarting: {reason}")
        return None

    def write(self, record: Record, state: State) -> None:
        """Replace the file with the present record and state."""
        buffer = io.BytesIO()
        torch.save({"record": record.model_dump_json(), "state": state}, buffer)
        payload = buffer.getbuffer()  # no copy: the state may be large
        header = {"identity": self._identity, "sha256": hashlib.sha256(payload).hexdigest()}
        write_bytes(self._path, json.dumps(header).encode() + b"\n", payload)

    def remove(self) -> None:
        """Remove the file if there is one, because the run is complete."""
        self._path.unlink(missing_ok=True)
