"""A run's final network, kept beside its result."""

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
        folder: the run's.
        kept: whether it is wanted; else one that an earlier run left goes.
    """

    def __init__(self, folder: Path, kept: bool) -> None:
        self._path, self._kept = folder / NETWORK, kept

    def started(self, spec: RunSpec, tables: Mapping[str, Sequence[Row]]) -> None:
        """A network of before is this run's only if the run goes on from there."""
        if not (self._kept and tables):
            self._path.unlink(missing_ok=True)

    def evaluated(self, tables: Mapping[str, Sequence[Row]], weights: Weights | None) -> None:
        """Keep the network that the run would be judged by if it ended here."""
        if self._kept and weights is not None:
            buffer = io.BytesIO()
            torch.save({name: tensor.cpu() for name, tensor in weights().items()}, buffer)
            write_bytes(self._path, buffer.getbuffer())
