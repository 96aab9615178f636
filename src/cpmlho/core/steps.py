"""The training steps that methods are made of; each differentiates one group of parameters and steps it in place.

A step's products use working copies of the parameters in the training dtype, cast once after each update.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from cpmlho.core.problem import Problem
from cpmlho.core.response import Displacement, General, Response

Parameters = TypeVar("Parameters", General, Response)
CACHED = 2**17  # numbers in a piece that a core's own cache holds in float32, beside its gradient and copy
Gradients = list[Tensor]  # one a parameter, layer by layer
Batch = tuple[Tensor, Tensor]  # inputs (B, 1, H, W) in float32, labels (B,)


def flat(layers: Iterable[Iterable[Tensor]]) -> list[Tensor]:
    """All parameters of all layers in one list."""
    return [parameter for layer in layers for parameter in layer]


def leaves(layers: Iterable[Iterable[Tensor]]) -> list[Tensor]:
    """Aliases of all parameters that autograd differentiates with respect to."""
    return [parameter.detach().requires_grad_() for parameter in flat(layers)]


class Trainable(Generic[Parameters]):
    """Parameters of all layers in training.

    Attributes:
        masters: in float32.
        working: their copies rounded to the training dtype, which the products use; in float32 the masters themselves.
        dtype: of the training.
        velocities: running sums of the gradients, one a parameter; none without momentum (R19).
        by_pieces: whether `descend` goes through the parameters piece by piece, or through all of them at once.
    """

    def __init__(self, layers: Sequence[Parameters], dtype: torch.dtype, momentum: float = 0.0) -> None:
        self.dtype = dtype
        self.masters: list[Parameters] = list(layers)
        self.working: list[Parameters] = [layer.to(dtype) for layer in layers]
        self._momentum = momentum
        self.velocities = [torch.zeros_like(master) for master in flat(layers)] if momentum else []
        first = self.masters[0][0]
        self.by_pieces = first.device.type == "cpu"
        self._scratch, self._rounded = (first.new_empty(CACHED, dtype=kind) for kind in (first.dtype, dtype))

    def descend(self, rate: float, gradients: Sequence[Tensor], *pulls: Sequence[Tensor]) -> None:
        """One step of SGD (eqs. 13-14) along the loss's gradients, which the training dtype has, and other pulls."""
        if self.by_pieces:
            self._descend_by_pieces(rate, gradients, *pulls)
        else:
            self._descend_at_once(rate, gradients, *pulls)

    def _descend_at_once(self, rate: float, gradients: Sequence[Tensor], *pulls: Sequence[Tensor]) -> None:
        """With few kernels, for a device where the launch of one costs more than what it does."""
        masters, working = flat(self.masters), flat(self.working)
        parameters = zip(masters, working, gradients, strict=True)
        rounded = [g if w is m else g.to(self.dtype).to(m.dtype) for m, w, g in parameters]
        directions = [rounded, *map(list, pulls)]
        if self.velocities:
            torch._foreach_mul_(self.velocities, self._momentum)
            for direction in directions:
                torch._foreach_add_(self.velocities, direction)
            directions = [self.velocities]
        for direction in directions:
            torch._foreach_add_(masters, direction, alpha=-rate)
        self.refresh()

    def _descend_by_pieces(self, rate: float, gradients: Sequence[Tensor], *pulls: Sequence[Tensor]) -> None:
        """Large parameters go piece by piece, so that a piece is still in the cache when its working copy is made."""
        velocities: list[list[Tensor]] = [[each] for each in self.velocities] or [[] for _ in gradients]
        parameters = zip(flat(self.masters), flat(self.working), velocities, gradients, *pulls, strict=True)
        velocity: list[Tensor]
        for master, working, velocity, *along in parameters:
            wide = working is not master and working.dtype == master.dtype  # rounded numbers, kept in float32
            columns = [each.reshape(-1).split(CACHED) for each in (master, working, *along, *velocity)]
            for piece, copy, gradient, *others in zip(*columns, strict=True):
                rounded = self._rounded[: len(piece)]
                directions = [rounded.copy_(gradient) if wide else gradient, *others]
                if velocity:
                    speed = directions.pop().mul_(self._momentum)
                    for direction in directions:
                        speed.add_(direction)
                    directions = [speed]
                for direction in directions:
                    piece.add_(self._like(piece, direction), alpha=-rate)
                if working is not master:
                    copy.copy_(rounded.copy_(piece) if wide else piece)

    def _like(self, piece: Tensor, direction: Tensor) -> Tensor:
        """The direction in the piece's dtype; adding across dtypes would cast into new memory each time."""
        return direction if direction.dtype == piece.dtype else self._scratch[: len(piece)].copy_(direction)

    def refresh(self) -> None:
        """Make the working copies those of the masters as they are now."""
        for master, working in zip(flat(self.masters), flat(self.working), strict=True):
            if working is not master:
                working.copy_(master.to(self.dtype))


class RMSprop:
    """RMSprop to the bits of torch.optim's with its defaults, which would spend a second on importing a compiler.

    Attributes:
        square_averages: running means of the squared gradients, one a parameter.
    """

    DECAY, EPSILON = 0.99, 1e-8

    def __init__(self, parameters: Sequence[Tensor], rate: float) -> None:
        self._parameters, self._rate = list(parameters), rate
        self.square_averages = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """One step, in place."""
        for parameter, gradient, average in zip(self._parameters, gradients, self.square_averages, strict=True):
            average.mul_(self.DECAY).addcmul_(gradient, gradient, value=1 - self.DECAY)
            parameter.addcdiv_(gradient, average.sqrt().add_(self.EPSILON), value=-self._rate)


def general_gradients(
    problem: Problem,
    general: Trainable[General],
    batch: Batch,
    values: Tensor,
    noise: torch.Generator,
    displacement: Displacement | None = None,
) -> Gradients:
    """Gradients of the training loss with respect to W and b, layer by layer (eq. 13).

    Args:
        problem: data, network and losses.
        general: general parameters.
        batch: inputs and labels.
        values: hyperparameter values (n,), the same for each example.
        noise: stream of the dropout and cutout draws.
        displacement: the response term to include (the uncentred network of STN only), the same for each example.
    """
    inputs, labels = batch
    rows = (len(labels), -1)
    values = values.expand(rows)
    regularisers = problem.regularisers(values, noise)
    inputs = regularisers.augment(inputs).to(general.dtype)
    parameters = leaves(general.working)
    pairs = [General(*pair) for pair in zip(parameters[::2], parameters[1::2], strict=True)]
    shown = None if displacement is None else displacement._replace(d=displacement.d.expand(rows))
    outputs = problem.network.forward(inputs, pairs, regularisers, shown)
    return list(torch.autograd.grad(problem.train_loss(outputs, labels, values), parameters))


def response_gradients(
    problem: Problem,
    general: Trainable[General],
    batch: Batch,
    values: Tensor,
    noise: torch.Generator,
    displacement: Displacement,
    linearise: bool,
) -> Gradients:
    """Gradients of the training loss with respect to R, r and H, layer by layer (eq. 14 without planes).

    Args:
        problem: data, network and losses.
        general: general parameters, held fixed.
        batch: inputs and labels.
        values: hyperparameter values of each example, (B, n).
        noise: stream of the dropout and cutout draws.
        displacement: response parameters in the training dtype, and the displacement of each example.
        linearise: linearise the output in the response (Delta-STN) or not (STN).
    """
    inputs, labels = batch
    regularisers = problem.regularisers(values, noise)
    inputs = regularisers.augment(inputs).to(general.dtype)
    parameters = leaves(displacement.response)
    triples = [Response(*triple) for triple in zip(*(parameters[i::3] for i in range(3)), strict=True)]
    predict = problem.network.linearised if linearise else problem.network.forward
    outputs = predict(inputs, general.working, regularisers, Displacement(triples, displacement.d))
    return list(torch.autograd.grad(problem.train_loss(outputs, labels, values), parameters))


def joint_gradients(
    problem: Problem,
    general: Trainable[General],
    batch: Batch,
    values: Tensor,
    noise: torch.Generator,
    displacement: Displacement,
) -> tuple[Gradients, Gradients]:
    """Gradients of the training loss with respect to W and b, and to R, r and H, in one pass (STN's code, R4).

    Arguments as `response_gradients`; nothing is held fixed.
    """
    inputs, labels = batch
    regularisers = problem.regularisers(values, noise)
    inputs = regularisers.augment(inputs).to(general.dtype)
    own, responding = leaves(general.working), leaves(displacement.response)
    pairs = [General(*pair) for pair in zip(own[::2], own[1::2], strict=True)]
    triples = [Response(*triple) for triple in zip(*(responding[i::3] for i in range(3)), strict=True)]
    outputs = problem.network.forward(inputs, pairs, regularisers, Displacement(triples, displacement.d))
    gradients = torch.autograd.grad(problem.train_loss(outputs, labels, values), [*own, *responding])
    return list(gradients[: len(own)]), list(gradients[len(own) :])
