"""The methods that a Tuner takes, with all their options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cpmlho.core.options import CPMLHO, STN, ResponseOptions

__all__ = ["CPMLHO", "STN", "DeltaSTN"]


@dataclass(frozen=True, kw_only=True)
class DeltaSTN(ResponseOptions):
    """Delta-STN (Bae and Grosse 2020): a response centred at the current hyperparameters, and linearised.

    Two defaults differ from the published ones, as they find known optima more reliably (docs/defaults.md): R starts at
    W, and the first hyperparameter steps are corrected for bias. The study uses the published ones.
    """

    response_start: Literal["random", "weights"] = "weights"
    bias_correction: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.response in ("stn", "stn_joint"):
            raise ValueError(f"response of DeltaSTN must be delta_stn or temperature, got {self.response!r}: use STN()")
