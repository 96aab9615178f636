"""The optimizers of both levels, their steps along given gradients, and the processes that share them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from cpmlho.core.options import ResponseOptions
from cpmlho.core.response import Layers


class Processes:
    """The processes that train one module together, each on batches of its own; one process without a group.

    Attributes:
        rank: of this process.
        size: how many there are.
    """

    def __init__(self, group: Any = None) -> None:
        self._group = group
        self.rank, self.size = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace the tensors by their means over all processes."""
        if self.size > 1 and (each := [*tensors]):
            flat = torch.cat([t.detach().flatten() for t in each])
            dist.all_reduce(flat, group=self._group)
            for t, mean in zip(each, flat.div_(self.size).split([t.numel() for t in each]), strict=True):
                t.detach().copy_(mean.view_as(t))

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace the tensors by those of the first process."""
        if self.size > 1:
            for t in tensors:
                dist.broadcast(t.detach(), dist.get_global_rank(self._group, 0), group=self._group)

    def share(self, joint: Tensor) -> Tensor:
        """This process's rows of what all drew alike for the joint batch."""
        return joint if self.size == 1 else joint.chunk(self.size)[self.rank]


class Descent:
    """How optimizers step: along the mean over processes, unscaled after float16, and clipped.

    Args:
        processes: that share the gradients.
        scaler: of float16's losses.
        max_norm: of the gradients of the weights, and likewise of their response; None: not clipped.
    """

    def __init__(self, processes: Processes, scaler: torch.amp.GradScaler, max_norm: float | None) -> None:
        self._processes, self.scaler, self._max_norm = processes, scaler, max_norm

    def gradient(self, loss: Tensor, variables: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients of a loss (scaled for float16); None where it does not depend on a variable."""
        return [*torch.autograd.grad(self.scaler.scale(loss), variables, allow_unused=True)]

    def step(
        self, optimizer: Optimizer, variables: Sequence[Tensor], gradients: Sequence[Tensor | None], *, clip: bool
    ) -> None:
        """One step of an optimizer along these gradients."""
        optimizer.zero_grad()
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.grad = gradient
        self._processes.average(g for g in gradients if g is not None)
        if self.scaler.is_enabled():
            self.scaler.unscale_(optimizer)
        if clip and self._max_norm is not None:
            torch.nn.utils.clip_grad_norm_(variables, self._max_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
        for variable in variables:
            variable.grad = None  # so that another optimizer.step() by mistake changes nothing


def added(one: Sequence[Tensor | None], two: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The sums of gradients, of which each may be None."""
    return [b if a is None else a if b is None else a + b for a, b in zip(one, two, strict=True)]


def rmsprop(parameters: list[Tensor], method: ResponseOptions) -> Optimizer:
    """RMSprop; with bias correction it is Adam without momentum."""
    if method.bias_correction:
        return torch.optim.Adam(parameters, method.hyper_learning_rate, betas=(0.0, 0.99))
    return torch.optim.RMSprop(parameters, method.hyper_learning_rate)


def response_groups(layers: Layers, optimizer: Optimizer) -> dict[int, list[Tensor]]:
    """The response parameters by the optimizer's group that holds their weights; those of no group are in the first."""
    index = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
    found: dict[int, list[Tensor]] = {}
    weights: list[Tensor | None] = [*layers.weights] or [None]  # `temperature` responds for no single weight
    for weight, parameters in zip(weights, layers.trained, strict=True):
        for parameter in parameters:
            parameter.requires_grad_()
            found.setdefault(index.get(id(weight), 0), []).append(parameter)
    return found


def alike(optimizer: Optimizer, groups: list[dict[str, Any]]) -> Optimizer:
    """An optimizer of the same kind and options, without weight decay.

    Raises:
        ValueError: its kind cannot be made from its options.
    """
    kind = type(optimizer)
    known = inspect.signature(kind).parameters
    options = {name: value for name, value in optimizer.defaults.items() if name in known}
    if "weight_decay" in options:
        options["weight_decay"] = 0.0
    try:
        return kind(groups, **options)
    except TypeError as error:
        raise ValueError(
            f"no second {kind.__name__} can be made from its options ({error}): give "
            "response_optimizer=lambda parameters: ..."
        ) from error
