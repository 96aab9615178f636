"""What a tuner can say about its hypergradient: its value, and whether a short retraining agrees."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from cpmlho.core.bilevel import Batch, Bilevel
from cpmlho.core.loading import move
from cpmlho.core.state import load_state_dict, state_dict


class Quality(NamedTuple):
    """Gradients of the validation loss by lambda, by name.

    Attributes:
        predicted: through the response.
        measured: finite differences of short trainings.
    """

    predicted: dict[str, float]
    measured: dict[str, float]

    @property
    def cosine(self) -> float:
        """Of the angle between both: 1 is the same direction, 0 none, -1 the opposite one."""
        length = math.hypot(*self.predicted.values()) * math.hypot(*self.measured.values())
        dot = sum(self.predicted[name] * self.measured[name] for name in self.predicted)
        return dot / length if length else 0.0

    @property
    def signs(self) -> float:
        """The share of hyperparameters whose gradients agree in sign."""
        agree = [self.predicted[name] * self.measured[name] > 0 for name in self.predicted]
        return sum(agree) / len(agree)


def hypergradient(bilevel: Bilevel, batches: Iterable[Batch]) -> dict[str, float]:
    """The gradient of the mean validation loss with respect to lambda, through the response, without perturbations.

    Raises:
        ValueError: there are no batches.
    """
    _, *gradient = _validation(bilevel, batches)
    return dict(zip(bilevel.space, gradient, strict=True))


def response_quality(
    bilevel: Bilevel, train: Sequence[Batch], valid: Sequence[Batch], steps: int, shift: float
) -> Quality:
    """The predicted and the measured gradient; `bilevel` ends as it was.

    Raises:
        ValueError: the response is not centred, or there are no batches.
    """
    if not bilevel.centred:
        raise ValueError("the quality of a response can be measured for DeltaSTN and centred CPMLHO only, not for STN")
    if not train:
        raise ValueError("there are no batches to train on")
    predicted, measured = hypergradient(bilevel, valid), dict[str, float]()
    state = state_dict(bilevel)
    try:
        for i, name in enumerate(bilevel.space):
            losses = []
            for by in (shift, -shift):
                load_state_dict(bilevel, state)
                with torch.no_grad():
                    bilevel.lam[i] += by
                for step in range(steps):
                    bilevel.general_step([move(train[step % len(train)], bilevel.device)])
                losses.append(_validation(bilevel, valid)[0])
            measured[name] = (losses[0] - losses[1]) / (2 * shift)
    finally:
        load_state_dict(bilevel, state)
    return Quality(predicted, measured)


def _validation(bilevel: Bilevel, batches: Iterable[Batch]) -> list[float]:
    """The mean validation loss, and its gradient with respect to lambda: 1 + n numbers."""
    lam, count = bilevel.lam.detach().clone().requires_grad_(), 0
    total = lam.new_zeros(1 + len(lam))
    for each in batches:
        batch = move(each, bilevel.device)
        size = bilevel.rows(batch)
        loss = bilevel.validation_loss(batch, lam.expand(size, -1), "idle")
        total += size * torch.cat([loss.detach()[None], *torch.autograd.grad(loss, lam)])
        count += size
    if not count:
        raise ValueError("there are no batches to take the gradient on")
    total /= count
    bilevel.processes.average([total])
    found: list[float] = total.tolist()
    return found
