"""Named streams of randomness, so that methods compared on a seed share what they can share."""

from __future__ import annotations

import hashlib

import torch


class Streams:
    """One generator for each purpose of a run; streams of other names never disturb each other.

    Initialisation and order come from the CPU whatever the device, so that they are the same on all machines.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed = seed
        self._device = device
        self._generators: dict[str, torch.Generator] = {}

    def host(self, name: str) -> torch.Generator:
        """The stream `name` on the CPU."""
        return self._get(name, torch.device("cpu"))

    def device(self, name: str) -> torch.Generator:
        """The stream `name` on the run's device."""
        return self._get(name, self._device)

    def number(self, name: str) -> int:
        """A seed in [0, 2**31) for a library with a generator of its own."""
        return self._digest(name) % 2**31

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Where each stream in use stands."""
        return {name: generator.get_state() for name, generator in self._generators.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Set the streams in use to where they stood; the same ones must be in use."""
        for name, generator in self._generators.items():
            generator.set_state(state[name].cpu())

    def _get(self, name: str, device: torch.device) -> torch.Generator:
        if name not in self._generators:
            self._generators[name] = torch.Generator(device).manual_seed(self._digest(name))
        return self._generators[name]

    def _digest(self, name: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self._seed}/{name}".encode()).digest()[:7], "little")
