"""The final network of a run, as a file next to its result."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from cpmlho.study.files import write_bytes
from cpmlho.study.results import NETWORK, Observer, Row, Weights
from cpmlho.study.spec import RunSpec


class Network(Observer):
    """Writes `network.pt`: the network's state_dict at the final hyperparameters.

    Args:
        folder: the run's folder.
        kept: whether to write it; if not, the file of an earlier run is removed.
    """

    def __init__(self, folder: Path, kept: bool) -> None:
        self._path, self._kept = folder / NETWORK, kept

    def started(self, spec: RunSpec, tables: Mapping[str, Sequence[Row]]) -> None:
        """Remove an earlier network, unless this run continues the one that wrote it."""
        if not (self._kept and tables):
            self._path.unlink(missing_ok=True)

    def evaluated(self, tables: Mapping[str, Sequence[Row]], weights: Weights | None) -> None:
        """Write the network if this evaluation counts so far."""
        if self._kept and weights is not None:
            buffer = io.BytesIO()
            torch.save({name: tensor.cpu() for name, tensor in weights().items()}, buffer)
            write_bytes(self._path, buffer.getbuffer())
