"""The checkpoint, from which an interrupted run resumes: one file, replaced atomically after each evaluation.

Its first line is JSON with the identity of the run and the SHA-256 of the rest. `torch.load` reads the rest with
`weights_only`, so that no code in the file is executed.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch

from cpmlho.study.events import State
from cpmlho.study.files import write_bytes
from cpmlho.study.harness.record import Record

CHECKPOINT = "checkpoint.pt"


class Saved(NamedTuple):
    """The content of a checkpoint."""

    record: Record
    state: State


class UnusableError(Exception):
    """A checkpoint that cannot be resumed; the message says why."""


class Checkpoint:
    """The checkpoint of one run.

    Args:
        folder: the run's folder.
        identity: what must be unchanged for a run to resume, by name: settings, versions, device and so on.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.path = folder / CHECKPOINT
        self._identity = identity

    def read(self, device: torch.device) -> Saved | None:
        """Return the content of the checkpoint, or None if there is none.

        Raises:
            UnusableError: the checkpoint is damaged, or from a different run.
        """
        try:
            first, _, payload = self.path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        try:
            header = json.loads(first)
            digest, identity = header["sha256"], header["identity"]
        except (ValueError, TypeError, KeyError):
            raise UnusableError("it is damaged") from None
        other = [name for name, value in self._identity.items() if identity.get(name) != value]
        if other:
            raise UnusableError(f"it was made under other {' and '.join(other)}")
        if hashlib.sha256(payload).hexdigest() != digest:
            raise UnusableError("it is damaged")
        try:
            content = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
            return Saved(Record.model_validate_json(content["record"]), content["state"])
        except (RuntimeError, UnpicklingError, TypeError, KeyError, ValueError):
            raise UnusableError("it holds something else") from None

    def write(self, record: Record, state: State) -> None:
        """Replace the file by the present record and state."""
        buffer = io.BytesIO()
        torch.save({"record": record.model_dump_json(), "state": state}, buffer)
        payload = buffer.getbuffer()  # no copy: the state may be large
        header = {"identity": self._identity, "sha256": hashlib.sha256(payload).hexdigest()}
        write_bytes(self.path, json.dumps(header).encode() + b"\n", payload)

    def remove(self) -> None:
        """Remove the file if there is one, because the run is complete."""
        self.path.unlink(missing_ok=True)
