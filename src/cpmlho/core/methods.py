"""The methods that a Tuner takes, with all their options."""

from __future__ import annotations

from dataclasses import dataclass

from cpmlho.core.options import CPMLHO, STN, ResponseOptions

__all__ = ["CPMLHO", "STN", "DeltaSTN"]


@dataclass(frozen=True, kw_only=True)
class DeltaSTN(ResponseOptions):
    """Delta-STN (Bae and Grosse 2020): a response centred at the present hyperparameters, and linearised."""
