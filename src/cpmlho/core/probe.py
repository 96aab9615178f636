"""The checks of a Tuner's first step: set-ups that would tune nothing, or something else, without a word."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cpmlho.core.bilevel import Batch, Bilevel
from cpmlho.core.checks import named, row_losses, warn
from cpmlho.core.net import Net
from cpmlho.core.response import NORMS, evaluating, still_statistics
from cpmlho.core.spaces import Values

OF_THE_OPTIMIZER = {"learning_rate", "batch_size", "rate"}  # in addition to the optimizer's own names


class Seen(NamedTuple):
    """What one pass of the training loss shows.

    Attributes:
        losses: (B,), without a graph.
        gradient: of their weighted sum with respect to the response, as one vector.
        randomness: the state of all generators after the pass.
        net: that the loss called.
        outside: names of the modules that the loss called, but not by the net.
        read: the hyperparameters that the loss read.
    """

    losses: Tensor
    gradient: Tensor
    randomness: Tensor
    net: Net
    outside: set[str]
    read: set[str]


class Probe:
    """A look at both losses before the first step; it changes neither weights, buffers nor randomness.

    All passes share their randomness, and a random response, which no layer that is called can miss. Each question is a
    comparison of two such passes.
    """

    def __init__(self, bilevel: Bilevel) -> None:
        self._bilevel, self._layers, self._space = bilevel, bilevel.layers, bilevel.space
        self._lam, self._responding = bilevel.lam.detach(), bilevel.layers.responding_by(0.1)

    def train(self, batch: Batch) -> None:
        """Check the training loss.

        Raises:
            ValueError: it is not a loss for each example, no response reaches it, it cannot be differentiated, or a
                hyperparameter acts nowhere, not through `net`, or on other examples.
        """
        outputs = sum(len(response.r) for response in self._layers.response)
        if self._layers.temperature is None and outputs < len(self._space):
            warn(
                f"{len(self._space)} hyperparameters share {outputs} responding output unit(s): their gradients are "
                f"then multiples of each other; give method=cpmlho.DeltaSTN(rank={-(-len(self._space) // outputs)}), "
                "add a layer, or tune fewer hyperparameters"
            )
        rows = self._bilevel.rows(batch)
        here = self._lam.expand(rows, -1)
        ones = torch.ones_like(here)  # at 0, no gradient of a decay would depend on it

        def see(lam: Tensor = here, delta: Tensor = ones, *, linear: bool = False) -> Seen:
            return self._see(batch, lam, delta, linear)

        norms = nn.ModuleList(part for part in self._layers.module.modules() if isinstance(part, NORMS))
        with evaluating(norms):  # no example touches another through batch statistics
            first = see()
            self._response_reaches(first)
            if self._bilevel.centred and self._layers.temperature is None:
                see(linear=True)
            delta = ones.clone()
            delta[0] = -1
            close = torch.isclose(see(delta=delta).losses, first.losses, rtol=1e-4, atol=1e-6, equal_nan=True)
            if touching := not close[1:].all():
                warn(
                    "the first example's hyperparameters change the losses of others: either train_loss compares "
                    "examples, or the examples are not the first axis everywhere in the module (batch_first=True)"
                )
            noise = (see().gradient - first.gradient).abs().max()  # 0 on a CPU
            for i, name in enumerate(self._space):
                halves = []
                for half in (slice(0, None, 2), slice(1, None, 2)):  # of the examples, over the whole range
                    lam = here.clone()
                    lam[half, i] = torch.linspace(0.98, 0.02, rows, device=lam.device).to(lam).logit()[half]
                    halves.append(see(lam))
                self._acts(name, first, halves, noise)
                if not touching:
                    _alone(name, first, halves)

    def valid(self, batch: Batch) -> None:
        """Check the validation loss.

        Raises:
            ValueError: it has another shape, has no gradient through `net`, or is a sum.
        """
        size = self._bilevel.rows(batch)
        here = self._lam.expand(size, -1)
        delta = torch.zeros_like(here).requires_grad_()
        net = Net(self._responding, self._values(here), delta)
        with evaluating(self._layers.module):
            with self._still():
                found = self._bilevel.valid_loss(net, batch)
            if not isinstance(found, Tensor) or found.dim():
                found = row_losses(found, size, "valid_loss")
            elif found.requires_grad and self._is_sum(batch, size):
                raise ValueError("valid_loss is a sum over the batch: return one loss an example, or their mean")
        if not net.calls:
            raise ValueError("valid_loss never called net: call net(...) instead of the module")
        if not found.requires_grad or _gradients("valid_loss", found.mean(), [delta])[0] is None:
            raise ValueError(
                "valid_loss has no gradient through net: return a differentiable loss, neither accuracy nor a loss "
                "computed under torch.no_grad()"
            )

    def _see(self, batch: Batch, lam: Tensor, delta: Tensor, linear: bool) -> Seen:
        """One pass at lambda and the displacement delta, (B, n) both."""
        layers, values = self._responding, self._values(lam)
        response = [layers.temperature] if layers.temperature is not None else [r.H for r in layers.response]
        for H in response:
            H.requires_grad_()
        net, outside = Net(layers, values, delta, linear=linear), set[str]()

        def called(name: str) -> Callable[..., None]:
            return lambda *_: None if net.running else outside.add(name or "the module itself")

        with contextlib.ExitStack() as stack:
            for name, part in layers.module.named_modules():
                stack.callback(part.register_forward_pre_hook(called(name)).remove)
            stack.enter_context(self._still())
            losses = row_losses(self._bilevel.train_loss(net, batch, values), len(lam), "train_loss")
            cuda = [torch.cuda.get_rng_state(lam.device)] if lam.device.type == "cuda" else []
            randomness = torch.cat([torch.get_rng_state(), values.generator.get_state().cpu(), *cuda])
        # Unequal weights: values that only average to the start value's gradient do act.
        weights = torch.linspace(1, 2, len(lam), device=losses.device).to(losses)
        gradients = _gradients("train_loss", losses @ weights, response)
        vector = [(torch.zeros_like(H) if g is None else g).flatten() for g, H in zip(gradients, response, strict=True)]
        return Seen(losses.detach(), torch.cat(vector), randomness, net, outside, values.read)

    def _response_reaches(self, first: Seen) -> None:
        """Refuse a loss that no response reaches; point out what does not respond, or decays twice."""
        layers = self._layers
        if not first.net.calls:
            raise ValueError("train_loss never called net: call net(...), the module as each pass needs it")
        if not first.net.fired or not first.gradient.any():
            raise ValueError(
                f"no response reaches train_loss: none of {named(layers.names)} was called by net(...), or its output "
                "is not used, or used without a gradient"
            )
        if first.outside:
            warn(
                f"train_loss calls net, but also the module without it ({named(sorted(first.outside))}): that part "
                "does not respond to hyperparameters"
            )
        if first.net.decays and any(group.get("weight_decay") for group in self._bilevel.optimizer.param_groups):
            warn(
                "weights decay twice: by net.l2() in train_loss and by the optimizer's weight_decay; set the "
                "optimizer's to 0 if train_loss tunes the decay"
            )
        if layers.temperature is not None:
            return
        responding = layers.by_name.keys() - {*layers.silent(first.net.fired)}
        if deaf := [name for name, p in layers.module.named_parameters() if p.requires_grad and name not in responding]:
            warn(
                f"these parameters train, but do not respond to hyperparameters: {named(deaf)}. What responds are "
                "nn.Linear and convolutions with torch's own forward, when it is called and the weight is a parameter"
            )

    def _acts(self, name: str, first: Seen, changed: Sequence[Seen], noise: Tensor) -> None:
        """Refuse a hyperparameter that changes neither the losses nor their gradient with respect to the response."""
        if all(torch.equal(each.losses, first.losses) for each in changed):
            raise ValueError(self._acts_nowhere(name, first.read))
        if all((each.gradient - first.gradient).abs().max() <= 2 * noise for each in changed):
            raise ValueError(
                f"hyperparameter {name!r} changes train_loss, but not its gradient through net, so no response can "
                f"learn it: let h.{name} act on what net(...), net.l2() or net.parameters() returns, not on the "
                "module's own weights and not as a term of its own"
                + (" (a temperature response cannot learn a decay)" if self._layers.temperature is not None else "")
            )

    def _acts_nowhere(self, name: str, read: set[str]) -> str:
        message = f"hyperparameter {name!r} acts nowhere: train_loss is the same whatever its value"
        if name in {*self._bilevel.optimizer.param_groups[0], *OF_THE_OPTIMIZER}:
            return message + (
                f". What steers the optimizer cannot be tuned: it changes no loss at given weights, so there is no "
                f"response to learn; leave {name!r} out of the space"
                + (" and add h.weight_decay * net.l2() to the loss" if name == "weight_decay" else "")
            )
        dropped = {place.name for place in self._layers.dropouts}
        if name in read | dropped:
            return message + f", although it is used: is what h.{name} acts on 0, or constant, in the first batch?"
        found = [f"cpmlho.Dropout({place.name!r})" for place in self._layers.dropouts]
        used = [*(f"h.{n}" for n in sorted(read - dropped)), *found]
        return message + f"; what is used is {named(used) if used else 'no hyperparameter at all'}"

    def _is_sum(self, batch: Batch, size: int) -> bool:
        """Whether a scalar validation loss doubles with the batch; False for batches that cannot be doubled."""
        net = Net(self._layers, self._values(self._lam[None]))

        def twice(leaf: Any) -> Any:
            return torch.cat([leaf, leaf]) if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == size else leaf

        def loss(batch: Batch) -> float:
            with torch.no_grad(), self._still():
                return float(self._bilevel.valid_loss(net, batch))

        try:
            once, both = loss(batch), loss(pytree.tree_map(twice, batch))
        except Exception:  # a batch of another structure, or a loss of batches of one size
            return False
        return abs(both - 2 * once) < 0.01 * abs(both)

    def _values(self, lam: Tensor) -> Values:
        return Values(self._space, self._space.value(lam), torch.Generator(lam.device).manual_seed(0))

    @contextlib.contextmanager
    def _still(self) -> Iterator[None]:
        """A pass with the same buffers and randomness as every other one."""
        devices = [self._lam.device] if self._lam.device.type == "cuda" else []
        with torch.random.fork_rng(devices), still_statistics(self._layers.module), self._bilevel.casting():
            torch.manual_seed(0)
            yield


def _alone(name: str, first: Seen, halves: Sequence[Seen]) -> None:
    """Refuse a hyperparameter of one example that changes the losses of others: a mean, or one example's for all."""
    for changed, other in zip(halves, (slice(1, None, 2), slice(0, None, 2)), strict=True):
        same = torch.isclose(changed.losses[other], first.losses[other], rtol=1e-5, atol=1e-8, equal_nan=True).all()
        # After other draws, the noise of all may have changed.
        if not same and torch.equal(changed.randomness, first.randomness):
            raise ValueError(
                f"hyperparameter {name!r} of one example changes the losses of others: use h.{name}, which is one "
                "value for each example, without .mean(), .item() or an index; label smoothing for each example is "
                "cpmlho.cross_entropy(logits, labels, label_smoothing=...)"
            )


def _gradients(what: str, loss: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients of a loss; None where it does not depend on an input.

    Raises:
        ValueError: torch cannot compute them; the message says what to do about it.
    """
    if not loss.requires_grad:
        return (None,) * len(inputs)
    try:
        return torch.autograd.grad(loss, inputs, allow_unused=True)
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
