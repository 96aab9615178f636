"""The training steps that methods are made of; each differentiates one group of parameters and steps it in place.

Master parameters are float32. A step's products use copies in the training dtype, cast once after each update;
in float32 these are the masters themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from cpmlho.tuning.problem import Problem
from cpmlho.tuning.response import General, Response

Batch = tuple[Tensor, Tensor]  # inputs (B, 1, H, W) in float32, labels (B,)


def cast(general: Sequence[General], dtype: torch.dtype) -> list[General]:
    """General parameters for the products."""
    return [General(layer.W.to(dtype), layer.b.to(dtype)) for layer in general]


def cast_response(response: Sequence[Response], dtype: torch.dtype) -> list[Response]:
    """Response parameters for the products; H, small and accumulated, stays float32."""
    return [Response(layer.R.to(dtype), layer.r.to(dtype), layer.H) for layer in response]


def flat(layers: Iterable[Iterable[Tensor]]) -> list[Tensor]:
    """All parameters of all layers in one list."""
    return [parameter for layer in layers for parameter in layer]


def leaves(layers: Iterable[Iterable[Tensor]]) -> list[Tensor]:
    """Aliases of all parameters that autograd differentiates with respect to."""
    return [parameter.detach().requires_grad_() for parameter in flat(layers)]


def descend(parameters: Sequence[Tensor], gradients: Sequence[Tensor], rate: float) -> None:
    """One step of plain SGD, in place (eqs. 13-14); gradients may be of a lower precision."""
    torch._foreach_add_(list(parameters), list(gradients), alpha=-rate)


def general_step(
    problem: Problem,
    general: list[General],
    working: list[General],
    batch: Batch,
    values: Tensor,
    noise: torch.Generator,
    response: Sequence[Response] | None = None,
    d: Tensor | None = None,
) -> list[General]:
    """One step on W and b (eq. 13), at hyperparameter values (n,); returns the new working copies.

    Args:
        problem: data, network and losses.
        general: master parameters, stepped in place.
        working: their copies in the training dtype.
        batch: inputs and labels.
        values: hyperparameter values (n,), the same for each example.
        noise: stream of the dropout and cutout draws.
        response: with `d`, the response term to include (the uncentred network of STN only).
        d: displacement (n,).
    """
    inputs, labels = batch
    rows = (len(labels), -1)
    values = values.expand(rows)
    regularisers = problem.regularisers(values, noise)
    inputs = regularisers.augment(inputs).to(problem.dtype)
    parameters = leaves(working)
    pairs = [General(*pair) for pair in zip(parameters[::2], parameters[1::2], strict=True)]
    displacement = None if d is None else d.expand(rows)
    outputs = problem.network.forward(inputs, pairs, regularisers, response, displacement)
    gradients = torch.autograd.grad(problem.train_loss(outputs, labels, values), parameters)
    descend(flat(general), gradients, problem.training.learning_rate)
    return cast(general, problem.dtype)


def response_step(
    problem: Problem,
    working: list[General],
    response: list[Response],
    batch: Batch,
    displaced: Tensor,
    centre: Tensor,
    noise: torch.Generator,
    linearise: bool,
) -> list[Tensor]:
    """Gradients of the training loss with respect to R, r and H, layer by layer.

    Args:
        problem: data, network and losses.
        working: general parameters in the training dtype, held fixed.
        response: response parameters in the training dtype.
        batch: inputs and labels.
        displaced: unconstrained hyperparameters of each example, lambda + epsilon, (B, n).
        centre: (n,), where the response vanishes.
        noise: stream of the dropout and cutout draws.
        linearise: linearise the output in the response (Delta-STN) or not (STN).
    """
    inputs, labels = batch
    values = problem.space.values(displaced)
    regularisers = problem.regularisers(values, noise)
    inputs = regularisers.augment(inputs).to(problem.dtype)
    parameters = leaves(response)
    triples = [Response(*triple) for triple in zip(*(parameters[i::3] for i in range(3)), strict=True)]
    predict = problem.network.linearised if linearise else problem.network.forward
    outputs = predict(inputs, working, regularisers, triples, displaced - centre)
    return list(torch.autograd.grad(problem.train_loss(outputs, labels, values), parameters))
