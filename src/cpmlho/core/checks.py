"""What a tuner looks at before its first step, and what it says."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import LBFGS, Optimizer
from torch.utils import _pytree as pytree

from cpmlho.core.net import Net
from cpmlho.core.options import CPMLHO, ResponseOptions
from cpmlho.core.response import NORMS, Layers, evaluating, still_statistics
from cpmlho.core.spaces import Space, Uniform, Values

SHOWN = 8  # names in a message
WRAPPERS = {"accelerate", "lightning", "pytorch_lightning"}  # packages that wrap optimizers
OF_THE_OPTIMIZER = {"learning_rate", "batch_size", "rate"}  # beside the optimizer's own names


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


def precision(autocast: torch.dtype | None, method: ResponseOptions | None) -> None:
    """Refuse float16 with cutting planes, whose gradient is not that of a scaled loss.

    Raises:
        ValueError: with one line.
    """
    if autocast is torch.float16 and isinstance(method, CPMLHO) and method.cutting_planes:
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


class Probe:
    """A look at both losses before the first step; it changes neither weights, buffers nor randomness.

    Args:
        layers: of the module.
        space: the hyperparameters.
        lam: lambda (n,).
        casting: autocast as in the steps.
        linear: whether the response's pass is linearised.
    """

    def __init__(
        self,
        layers: Layers,
        space: Space,
        lam: Tensor,
        casting: Callable[[], AbstractContextManager[Any]],
        *,
        linear: bool,
    ) -> None:
        self._layers, self._space, self._lam, self._casting, self._linear = layers, space, lam.detach(), casting, linear
        outputs = sum(len(response.r) for response in layers.response)
        if layers.temperature is None and outputs < len(space):
            warn(
                f"{len(space)} hyperparameters share {outputs} responding output unit(s): their gradients are then "
                "multiples of each other; add a layer, or tune fewer hyperparameters"
            )

    @torch.no_grad()
    def train(self, loss: Callable[..., Tensor], batch: Any, rows: int, optimizer: Optimizer) -> None:
        """Check the training loss.

        Raises:
            ValueError: it is not a loss for each example, no response reaches it, it cannot be differentiated, or a
                hyperparameter acts nowhere, not through `net`, or on other examples.
        """
        self._loss, self._batch, self._rows = loss, batch, rows
        self._here = self._lam.expand(rows, -1)
        self._general_pass(optimizer)
        self._response_reaches_the_loss()
        self._each_acts(optimizer)
        if self._linear:
            self._gradient(self._here, linear=True)
        self._each_example_alone()

    def valid(self, loss: Callable[..., Tensor], batch: Any, rows: Callable[[Any], int]) -> None:
        """Check the validation loss.

        Raises:
            ValueError: it has another shape, has no gradient through `net`, or is a sum.
        """
        size = rows(batch)
        delta = torch.zeros(size, len(self._space), device=self._lam.device, dtype=self._lam.dtype, requires_grad=True)
        module, values = self._layers.module, self._values(self._lam.expand(size, -1))
        net = Net(self._layers.responding_by(0.1), values, delta)
        with evaluating(module):
            with self._pass():
                found = loss(net, batch)
            if not isinstance(found, Tensor) or found.dim():
                found = row_losses(found, size, "valid_loss")
            elif found.requires_grad:
                _no_sum(lambda part: self._plain(loss, Net(self._layers, values), part), batch, size)
        if not net.calls:
            raise ValueError("valid_loss never called net: call net(...) instead of the module")
        if not found.requires_grad or _grad("valid_loss", found.mean(), [delta])[0] is None:
            raise ValueError(
                "valid_loss has no gradient through net: return a differentiable loss, neither accuracy nor a loss "
                "computed under torch.no_grad()"
            )

    def _general_pass(self, optimizer: Optimizer) -> None:
        outside = set[str]()
        net = Net(self._layers, self._values(self._here))

        def called(name: str) -> Callable[..., None]:
            return lambda *_: None if net.running else outside.add(name or "the module itself")

        with contextlib.ExitStack() as stack:
            for name, part in self._layers.module.named_modules():
                stack.callback(part.register_forward_pre_hook(called(name)).remove)
            row_losses(self._losses(net, self._here), self._rows, "train_loss")
        if not net.calls:
            raise ValueError("train_loss never called net: call net(...), the module as each pass needs it")
        if outside:
            warn(
                f"train_loss calls net, but also the module without it ({named(sorted(outside))}): that part does not "
                "respond to hyperparameters"
            )
        if net.decays and any(group.get("weight_decay") for group in optimizer.param_groups):
            warn(
                "weights decay twice: by net.l2() in train_loss and by the optimizer's weight_decay; set the "
                "optimizer's to 0 if train_loss tunes the decay"
            )

    def _response_reaches_the_loss(self) -> None:
        with evaluating(self._layers.module):  # no example touches another through batch statistics
            fired, changed = self._changed_by_the_first()
        if not fired or not changed.any():
            raise ValueError(
                f"no response reaches train_loss: none of {named(self._layers.names)} was called by net(...), or its "
                "output is not used"
            )
        if changed[1:].any():
            warn(
                "the first example's hyperparameters change the losses of others: either train_loss compares examples, "
                "or the examples are not the first axis everywhere in the module (batch_first=True)"
            )
        if self._layers.temperature is None:
            self._say_what_does_not_respond(self._layers.silent(fired))

    def _changed_by_the_first(self) -> tuple[set[nn.Module], Tensor]:
        """The layers that respond, and which losses change, (B,), when the first example alone is displaced."""
        d = torch.zeros_like(self._here)
        still = self._losses(self._displaced(self._here, d), self._here)
        d[0] = 1
        net = self._displaced(self._here, d)
        return net.fired, ~torch.isclose(self._losses(net, self._here), still, rtol=1e-4, atol=1e-6)

    def _say_what_does_not_respond(self, silent: list[str]) -> None:
        named_parameters = {n: p for n, p in self._layers.module.named_parameters() if p.requires_grad}
        responding = self._layers.of({id(p): n for n, p in named_parameters.items()})
        deaf = [name for name in named_parameters if name not in responding or name in silent]
        if deaf:
            warn(
                f"these parameters train, but do not respond to hyperparameters: {named(deaf)}. What responds are "
                "nn.Linear and convolutions with torch's own forward, when it is called and the weight is a parameter"
            )

    def _each_acts(self, optimizer: Optimizer) -> None:
        """Each hyperparameter changes the losses, and their gradient with respect to the response."""
        losses, gradient = self._gradient(self._here)
        noise = _distance(gradient, self._gradient(self._here)[1])  # 0 on a CPU
        for i, name in enumerate(self._space):
            lam = self._spread(i)
            changed, other = self._gradient(lam)
            if torch.equal(changed, losses):
                raise ValueError(self._acts_nowhere(name, optimizer, lam))
            if not _distance(gradient, other) > 2 * noise:
                raise ValueError(
                    f"hyperparameter {name!r} changes train_loss, but not its gradient through net, so no response can "
                    f"learn it: let h.{name} act on what net(...), net.l2() or net.parameters() returns, not on the "
                    "module's own weights and not as a term of its own"
                    + (" (a temperature response cannot learn a decay)" if self._layers.temperature is not None else "")
                )

    def _spread(self, i: int) -> Tensor:
        """Lambda (B, n), with the range of hyperparameter i spread over the examples."""
        lam = self._here.clone()
        lam[:, i] = torch.linspace(0.98, 0.02, self._rows, device=lam.device, dtype=lam.dtype).logit()
        return lam

    def _acts_nowhere(self, name: str, optimizer: Optimizer, lam: Tensor) -> str:
        message = f"hyperparameter {name!r} acts nowhere: train_loss is the same whatever its value"
        if name in {*optimizer.param_groups[0], *OF_THE_OPTIMIZER}:
            return message + (
                f". What steers the optimizer cannot be tuned: it changes no loss at given weights, so there is no "
                f"response to learn; leave {name!r} out of the space"
                + (" and add h.weight_decay * net.l2() to the loss" if name == "weight_decay" else "")
            )
        read = self._values(lam)
        with self._pass():
            self._loss(Net(self._layers, read), self._batch, read)
        dropped = {place.name for place in self._layers.dropouts}
        if name in read.read | dropped:
            return message + f", although it is used: is what h.{name} acts on 0, or constant, in the first batch?"
        found = [f"cpmlho.Dropout({place.name!r})" for place in self._layers.dropouts]
        used = [*(f"h.{n}" for n in sorted(read.read - dropped)), *found]
        return message + f"; what is used is {named(used) if used else 'no hyperparameter at all'}"

    def _each_example_alone(self) -> None:
        """The loss of an example depends on its own hyperparameters alone, not on a mean or one example's for all."""
        module = self._layers.module
        norms = any(isinstance(part, NORMS) and part.training for part in module.modules())
        mode = evaluating(module) if norms else contextlib.nullcontext()
        with mode:
            if self._rows < 2 or self._changed_by_the_first()[1][1:].any():
                return  # the examples touch each other anyway
            losses, drawn = self._drawing(self._here)
            for i, name in enumerate(self._space):
                for first in (0, 1):
                    lam = self._here.clone()
                    lam[first::2, i] = self._spread(i)[first::2, i]
                    changed, draws = self._drawing(lam)
                    others = slice(1 - first, None, 2)
                    same = torch.isclose(changed[others], losses[others], rtol=1e-5, atol=1e-8, equal_nan=True)
                    if not same.all() and torch.equal(draws, drawn):  # otherwise the noise of all may have changed
                        raise ValueError(
                            f"hyperparameter {name!r} of one example changes the losses of others: use h.{name}, which "
                            "is one value for each example, without .mean(), .item() or an index; label smoothing for "
                            "each example is cpmlho.cross_entropy(logits, labels, label_smoothing=...)"
                        )

    def _drawing(self, lam: Tensor) -> tuple[Tensor, Tensor]:
        """The losses, and the state of all randomness after them."""
        values = self._values(lam)
        with self._pass():
            net = Net(self._layers.responding_by(1.0), values, torch.ones_like(lam))
            losses = self._loss(net, self._batch, values)
            cuda = [torch.cuda.get_rng_state(lam.device)] if lam.device.type == "cuda" else []
            return losses, torch.cat([torch.get_rng_state(), values.generator.get_state(), *cuda])

    def _gradient(self, lam: Tensor, *, linear: bool = False) -> tuple[Tensor, list[Tensor]]:
        """The losses at lambda (B, n), without a graph, and the gradient of their mean with respect to the response."""
        layers = self._layers.responding_by(0.1)
        response = [layers.temperature] if layers.temperature is not None else [r.H for r in layers.response]
        with torch.enable_grad():
            for H in response:
                H.requires_grad_()
            net = Net(layers, self._values(lam), torch.ones_like(lam), linear=linear)  # no weight is 0 for a decay
            losses = self._losses(net, lam)
            # Unequal weights: values that only average to the start value's gradient do act.
            gradient = _grad(
                "train_loss", losses @ torch.linspace(1, 2, len(losses), device=losses.device).to(losses), response
            )
        return losses.detach(), [
            g if g is not None else torch.zeros_like(H) for g, H in zip(gradient, response, strict=True)
        ]

    def _displaced(self, lam: Tensor, d: Tensor) -> Net:
        """The module with a response that no layer can miss."""
        return Net(self._layers.responding_by(1.0), self._values(lam), d)

    def _losses(self, net: Net, lam: Tensor) -> Tensor:
        with self._pass():
            return self._loss(net, self._batch, self._values(lam))

    @torch.no_grad()
    def _plain(self, loss: Callable[..., Tensor], net: Net, batch: Any) -> Tensor:
        with self._pass():
            return loss(net, batch)

    def _values(self, lam: Tensor) -> Values:
        return Values(self._space, self._space.value(lam), torch.Generator(lam.device).manual_seed(0))

    @contextlib.contextmanager
    def _pass(self) -> Iterator[None]:
        """A pass with the same buffers and randomness as every other one."""
        devices = [self._lam.device] if self._lam.device.type == "cuda" else []
        with torch.random.fork_rng(devices), still_statistics(self._layers.module), self._casting():
            torch.manual_seed(0)
            yield


def _distance(one: Sequence[Tensor], two: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a - b).abs().max() for a, b in zip(one, two, strict=True)]).max()


def _grad(what: str, loss: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients of a loss; None where it does not depend on an input.

    Raises:
        ValueError: torch cannot compute them.
    """
    if not loss.requires_grad:
        return (None,) * len(inputs)
    with _differentiating(what):
        return torch.autograd.grad(loss, inputs, allow_unused=True)


@contextlib.contextmanager
def _differentiating(what: str) -> Iterator[None]:
    """Say what to do about an operation that torch cannot differentiate; let other errors pass.

    Raises:
        ValueError: with one line.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error).splitlines()[0]
        if "checkpoint" in f"{type(error).__name__} {text}".lower():
            raise ValueError(
                f"{what} cannot be differentiated through torch.utils.checkpoint, which runs layers again outside the "
                "response's pass: switch activation checkpointing off, and accumulate smaller batches instead"
            ) from error
        if (operation := re.search(r"derivative for '?([\w:]+)'? is not implemented", text)) is None:
            raise
        raise ValueError(
            f"torch has no second derivative of an operation of the module ({operation[1]}), which the linearised pass "
            "of Delta-STN and CPMLHO needs: replace it, or give method=cpmlho.STN(), which needs none"
        ) from error


def _no_sum(loss: Callable[[Any], Tensor], batch: Any, size: int) -> None:
    """Refuse a scalar validation loss that doubles with the batch; batches that cannot be halved are not checked.

    Raises:
        ValueError: it is a sum over examples.
    """
    half = size // 2
    if not half:
        return
    try:
        first, second, whole = (loss(_part(batch, size, part)).item() for part in (
            slice(half), slice(half, 2 * half), slice(2 * half)))  # fmt: skip
    except Exception:
        return
    total = first + second
    if abs(whole - total) < 0.01 * abs(total) and abs(whole - total / 2) > 0.25 * abs(total):
        raise ValueError("valid_loss is a sum over the batch: return one loss an example, or their mean")


def _part(batch: Any, size: int, part: slice) -> Any:
    """Some examples of a batch of tensors."""
    return pytree.tree_map(lambda t: t[part] if isinstance(t, Tensor) and t.dim() and len(t) == size else t, batch)


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
