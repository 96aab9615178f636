"""The methods that a Tuner takes, with all their options."""

from __future__ import annotations

from dataclasses import dataclass

from cpmlho.core.options import CPMLHO, STN, ResponseOptions

__all__ = ["CPMLHO", "STN", "DeltaSTN"]


@dataclass(frozen=True, kw_only=True)
class DeltaSTN(ResponseOptions):
    """Delta-STN (Bae and Grosse 2020): a response centred at the present hyperparameters, and linearised."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.response in ("stn", "stn_joint"):
            raise ValueError(f"response of DeltaSTN must be delta_stn or temperature, got {self.response!r}: use STN()")
