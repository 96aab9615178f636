"""What a tuner looks at before its first step, and what it says."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import LBFGS, Optimizer

from cpmlho.core.net import Net
from cpmlho.core.response import Layers, evaluating, still_statistics
from cpmlho.core.spaces import Space, Uniform, Values

Loss = Callable[[Net, Any, Values], Tensor]
SHOWN = 8  # names in a message
OF_THE_OPTIMIZER = {"learning_rate", "batch_size", "rate"}  # beside the optimizer's own names


class TunerWarning(UserWarning):
    """Something that trains or responds otherwise than one might think."""


def named(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def arguments(module: nn.Module, space: Mapping[str, Uniform], optimizer: Optimizer) -> None:
    """Refuse what cannot work.

    Raises:
        ValueError: with one line that says what would.
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    if isinstance(module, (DataParallel, DistributedDataParallel)):
        raise ValueError("a Tuner works in one process on one device: give it the module inside DataParallel")
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in module.parameters()):
        raise ValueError("the module has lazy layers: call it once on a batch before it is given to a Tuner")
    if len({p.device for p in module.parameters()}) != 1:
        raise ValueError("the module's parameters must all be on one device")
    if isinstance(optimizer, LBFGS):
        raise ValueError("LBFGS evaluates its loss several times a step; a Tuner needs an optimizer that does not")
    if not space:
        raise ValueError("the space is empty: name at least one hyperparameter")
    for name, range_ in space.items():
        if not isinstance(range_, Uniform):
            raise ValueError(f"space[{name!r}] must be cpmlho.Uniform or cpmlho.LogUniform, got {range_!r}")


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


class Probe:
    """A look at a training loss before the first step; it changes neither weights nor randomness."""

    def __init__(self, layers: Layers, space: Space, loss: Loss, lam: Tensor, batch: Any, rows: int):
        self._layers, self._space, self._loss = layers, space, loss
        self._batch, self._rows = batch, rows
        self._lam = lam.detach().expand(rows, -1)

    def run(self, optimizer: Optimizer) -> None:
        """All checks.

        Raises:
            ValueError: the loss is not a row an example, no response reaches it, or a hyperparameter acts nowhere.
        """
        with torch.no_grad():
            with still_statistics(self._layers.module):
                net = Net(self._layers, self._values(self._lam))
                row_losses(self._losses(net, self._lam), self._rows, "train_loss")
                if not net.calls:
                    raise ValueError("train_loss never called net: call net(...), the module as each pass needs it")
            self._response_reaches_the_loss()
            with still_statistics(self._layers.module):
                self._each_acts(optimizer)

    def _response_reaches_the_loss(self) -> None:
        with evaluating(self._layers.module):  # where batch statistics let no example touch another
            d = torch.zeros_like(self._lam)
            still = self._losses(self._displaced(self._lam, d), self._lam)
            d[0] = 1
            net = self._displaced(self._lam, d)
            changed = ~torch.isclose(self._losses(net, self._lam), still, rtol=1e-4, atol=1e-6)
        if not net.fired or not changed.any():
            raise ValueError(
                f"no response reaches train_loss: none of {named(self._layers.names)} was called by net(...), or its "
                "output is not used"
            )
        if changed[1:].any():
            warnings.warn(
                "the first example's hyperparameters change the losses of others: either train_loss compares examples, "
                "or the examples are not the first axis everywhere in the module (batch_first=True)",
                TunerWarning,
                stacklevel=5,
            )
        if self._layers.temperature is None:
            self._say_what_does_not_respond(self._layers.silent(net.fired))

    def _say_what_does_not_respond(self, silent: list[str]) -> None:
        named_parameters = {n: p for n, p in self._layers.module.named_parameters() if p.requires_grad}
        responding = self._layers.of({id(p): n for n, p in named_parameters.items()})
        deaf = [name for name in named_parameters if name not in responding or name in silent]
        if deaf:
            warnings.warn(
                f"these parameters train, but do not respond to hyperparameters: {named(deaf)}. What responds are "
                "nn.Linear and convolutions with torch's own forward, when it is called and the weight is a parameter",
                TunerWarning,
                stacklevel=6,
            )

    def _each_acts(self, optimizer: Optimizer) -> None:
        d = torch.ones_like(self._lam)  # so that no weight is 0, where a decay would not act

        def losses(lam: Tensor) -> Tensor:
            return self._losses(self._displaced(lam, d), lam)

        reference = losses(self._lam)
        quantiles = torch.linspace(0.98, 0.02, self._rows, device=self._lam.device, dtype=self._lam.dtype)
        for i, name in enumerate(self._space):
            lam = self._lam.clone()
            lam[:, i] = quantiles.logit()
            if not torch.equal(losses(lam), reference):
                continue
            found = [f"cpmlho.Dropout({place.name!r})" for place in self._layers.dropouts]
            message = f"hyperparameter {name!r} acts nowhere: train_loss is the same whatever its value"
            if name in {*optimizer.param_groups[0], *OF_THE_OPTIMIZER}:
                message += (
                    f". What steers the optimizer cannot be tuned: it changes no loss at given weights, so there is no "
                    f"response to learn; leave {name!r} out of the space"
                    + (" and add h.weight_decay * net.l2() to the loss" if name == "weight_decay" else "")
                )
            else:
                read = self._values(lam)
                self._loss(Net(self._layers, read), self._batch, read)
                dropped = {place.name for place in self._layers.dropouts}
                used = [*(f"h.{n}" for n in sorted(read.read - dropped)), *found]
                message += f"; what is used is {named(used) if used else 'no hyperparameter at all'}"
            raise ValueError(message)

    def _displaced(self, lam: Tensor, d: Tensor) -> Net:
        """The module with a response that no layer can miss."""
        return Net(self._layers.strongly_responding(), self._values(lam), d)

    def _losses(self, net: Net, lam: Tensor) -> Tensor:
        with torch.random.fork_rng([lam.device] if lam.device.type == "cuda" else []):
            torch.manual_seed(0)
            return self._loss(net, self._batch, self._values(lam))

    def _values(self, lam: Tensor) -> Values:
        return Values(self._space, self._space.value(lam), torch.Generator(lam.device).manual_seed(0))


def untrained(module: nn.Module, optimizer: Optimizer) -> None:
    """Say, after the first gradients, which parameters do not train."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    for reason, names in (
        ("the optimizer does not hold", [n for n, p in trainable.items() if id(p) not in held]),
        ("train_loss does not depend on", [n for n, p in trainable.items() if id(p) in held and p.grad is None]),
    ):
        if names:
            warnings.warn(
                f"these parameters do not train, as {reason} them: {named(names)}", TunerWarning, stacklevel=4
            )
