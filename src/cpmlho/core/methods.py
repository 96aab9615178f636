"""The methods that a Tuner takes, with all their options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cpmlho.core.options import CPMLHO, STN, ResponseOptions, least

__all__ = ["CPMLHO", "STN", "DeltaSTN"]


@dataclass(frozen=True, kw_only=True)
class DeltaSTN(ResponseOptions):
    """Delta-STN (Bae and Grosse 2020): a response centred at the current hyperparameters, and linearised.

    Two defaults differ from the published ones, as they find known optima more reliably (docs/defaults.md): R starts at
    W, and the first hyperparameter steps are corrected for bias. The study uses the published ones.

    Attributes:
        rank: directions in which the weights of an output unit respond: the sum of this many (H_w delta) R. At 1, as
            published, all hyperparameters share one direction for each output unit. Parameters and time grow with it.
    """

    response_start: Literal["random", "weights"] = "weights"
    bias_correction: bool = True
    rank: int = least(1, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.response in ("stn", "stn_joint"):
            raise ValueError(f"response of DeltaSTN must be delta_stn or temperature, got {self.response!r}: use STN()")
        if self.rank > 1 and (self.response == "temperature" or self.response_weights in ("tied", "mean")):
            raise ValueError(
                f"rank must be 1 with response {self.response} and response_weights {self.response_weights}, in which "
                f"no further R has a place, got {self.rank}"
            )
