"""Checks of a Tuner's arguments, and warnings that name the user's line."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import LBFGS, Optimizer

from cpmlho.core.options import CPMLHO, ResponseOptions
from cpmlho.core.response import Layers
from cpmlho.core.spaces import Uniform

SHOWN = 8  # names in a message
WRAPPERS = {"accelerate", "lightning", "pytorch_lightning"}  # packages that wrap optimizers


class TunerWarning(UserWarning):
    """Something that trains or responds otherwise than one might think."""


def warn(message: str) -> None:
    """A `TunerWarning` at the line outside this package that led to it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals["__name__"].startswith(("cpmlho.core", "torch.")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, TunerWarning, stacklevel=level)


def named(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def arguments(
    module: nn.Module,
    space: Mapping[str, Uniform],
    train_loss: Callable[..., Any],
    valid_loss: Callable[..., Any],
    optimizer: Optimizer,
    valid: Iterable[Any],
    method: ResponseOptions | None,
    autocast: torch.dtype | None,
) -> None:
    """Refuse what cannot work.

    Raises:
        ValueError: with one line that says what would.
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    _module(module)
    _space(space)
    _callable("train_loss", train_loss, "(net, batch, h)", 3)
    _callable("valid_loss", valid_loss, "(net, batch)", 2)
    _optimizer(optimizer)
    if not isinstance(valid, Iterable) or isinstance(valid, (str, Tensor)):
        raise ValueError(
            f"valid must give batches, as a DataLoader does, got {type(valid).__name__}: for one batch give [batch]"
        )
    if method is not None and not isinstance(method, ResponseOptions):
        raise ValueError(f"method must be cpmlho.DeltaSTN(), cpmlho.STN() or cpmlho.CPMLHO(), got {method!r}")
    if autocast is torch.float16 and isinstance(method, CPMLHO) and method.cutting_planes:
        # their gradient is not that of a scaled loss
        raise ValueError("cutting planes do not work with autocast=torch.float16: use torch.bfloat16")


def _module(module: nn.Module) -> None:
    if any(isinstance(part, (DataParallel, DistributedDataParallel)) for part in module.modules()):
        raise ValueError(
            "DataParallel does not work in a Tuner, and DistributedDataParallel only around the whole module: give the "
            "module inside, or DistributedDataParallel(module)"
        )
    if any(hasattr(p, "device_mesh") for p in module.parameters()):
        raise ValueError("sharded parameters (FSDP) do not work in a Tuner: use DistributedDataParallel(module)")
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in module.parameters()):
        raise ValueError("the module has lazy layers: call it once on a batch before it is given to a Tuner")
    if len({p.device for p in module.parameters()}) != 1:
        raise ValueError("the module's parameters must all be on one device")
    for name, p in module.named_parameters():
        if p.dtype in (torch.float16, torch.bfloat16):
            kind = str(p.dtype)
            raise ValueError(
                f"parameter {name} is in {kind}: keep parameters in torch.float32 and give Tuner autocast={kind}"
            )


def _space(space: Mapping[str, Uniform]) -> None:
    if not isinstance(space, Mapping):
        raise ValueError(f"space must be a dictionary of ranges by name, got {type(space).__name__}")
    if not space:
        raise ValueError("the space is empty: name at least one hyperparameter")
    for name, range_ in space.items():
        if not isinstance(range_, Uniform):
            raise ValueError(f"space[{name!r}] must be cpmlho.Uniform or cpmlho.LogUniform, got {range_!r}")
        if name in ("generator", "read", "rows"):
            raise ValueError(f"the name {name!r} is taken, as h.{name} means something else: choose another one")


def _callable(what: str, loss: Callable[..., Any], takes: str, count: int) -> None:
    if not callable(loss):
        raise ValueError(f"{what} must be a function of {takes}, got {type(loss).__name__}")
    try:
        signature = inspect.signature(loss)
    except ValueError:  # a built-in does not say
        return
    try:
        signature.bind(*range(count))
    except TypeError:
        raise ValueError(
            f"{what} must be a function of {takes}, got one of {signature}: are train_loss and valid_loss swapped?"
        ) from None


def _optimizer(optimizer: Optimizer) -> None:
    if type(optimizer).__module__.split(".")[0] in WRAPPERS:
        raise ValueError(
            f"a {type(optimizer).__name__} decides itself when it steps: give the torch optimizer inside it, "
            "optimizer.optimizer"
        )
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    if isinstance(optimizer, LBFGS):
        raise ValueError("LBFGS evaluates its loss several times a step; a Tuner needs an optimizer that does not")


def places(layers: Layers, space: Mapping[str, Uniform]) -> None:
    """Refuse a module in which nothing would respond, or whose dropout would never act.

    Raises:
        ValueError: no layer responds; or a `Dropout` names what the space does not have, and has no fixed rate.
    """
    if not layers.names and layers.temperature is None:
        raise ValueError("the module has no nn.Linear or convolution that trains, so nothing would respond")
    for place in layers.dropouts:
        if place.name not in space and place.fixed is None:
            raise ValueError(
                f"the module has cpmlho.Dropout({place.name!r}), but the space has no {place.name!r} "
                f"(it has {named(list(space))}): add it, or give the module a fixed rate"
            )


def row_losses(losses: Any, rows: int, what: str) -> Tensor:
    """The losses, if they are (rows,).

    Raises:
        ValueError: they are not.
    """
    if not isinstance(losses, Tensor) or losses.shape != (rows,):
        got = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise ValueError(
            f"{what} must return one loss an example, shape ({rows},), got {got}: use reduction='none', and sum over "
            "all axes but the first"
        )
    return losses


def untrained(module: nn.Module, optimizer: Optimizer, gradients: Sequence[Tensor | None]) -> None:
    """Say, after the first gradients of the parameters that train, which of them do not."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    without = [name for name, gradient in zip(trainable, gradients, strict=True) if gradient is None]
    for reason, names in (
        ("the optimizer does not hold", [n for n, p in trainable.items() if id(p) not in held]),
        ("train_loss does not depend on", [n for n in without if id(trainable[n]) in held]),
    ):
        if names:
            warn(f"these parameters do not train, as {reason} them: {named(names)}")
