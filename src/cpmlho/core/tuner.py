"""Hyperparameters of any module tuned while it trains: the library's door to Delta-STN, STN and CPMLHO."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cpmlho.core import checks
from cpmlho.core.hooks import evaluating, load_forward_mode
from cpmlho.core.levels import Batch, Levels
from cpmlho.core.loading import move, rows
from cpmlho.core.methods import CPMLHO, DeltaSTN
from cpmlho.core.net import Net
from cpmlho.core.options import ResponseOptions
from cpmlho.core.resuming import move_to, restore, state_of
from cpmlho.core.spaces import Uniform, Values

TrainLoss = Callable[[Net, Batch, Values], Tensor]
ValidLoss = Callable[[Net, Batch], Tensor]


class Tuner:
    """Trains a module and tunes hyperparameters of its training loss on the way.

    Each `step` trains the module's own weights with `optimizer`, and beside them a response: how the weights would
    change if the hyperparameters did. Every few steps the hyperparameters descend a loss on validation batches through
    that response.

    Args:
        module: any module; its Linear and convolution layers respond. It lies on its device already.
        space: the hyperparameters by name.
        train_loss: (net, batch, h) -> (B,), one loss an example. `net` is called in place of the module; `h.name` is
            (B,), one value an example; `net.l2()` is half the squared weights, example by example.
        valid_loss: (net, batch) -> (B,), or their mean ().
        optimizer: of the module's parameters, without weight decay if decay is tuned.
        valid: batches of validation data, begun anew whenever they end; anything that can be gone through repeatedly.
        method: `DeltaSTN()`, `STN()` or `CPMLHO(...)`, which hold every option; None: `DeltaSTN()`.
        train: training batches for the upper level of CPMLHO, begun anew likewise; None: the batch of the present step.
        steps_per_epoch: what an epoch is to the options that count epochs (`warm_up`, `cut_every`).
        response_optimizer: an optimizer of the response from its parameters; None: one like `optimizer`, with its
            options, but for weight decay. Its learning rate is the method's `response_learning_rate`, or else the
            optimizer's at each step, schedules included.
        autocast: dtype of the products, such as `torch.bfloat16`; parameters stay as they are.
        rows: how many examples a batch has; None: the length that its tensors share.
        seed: of the perturbations, tuned dropout and the response's start; what else is random draws from torch's
            global generator.
        log: called after each hyperparameter update with numbers by name and `step=`; `mlflow.log_metrics` will do.
        check: whether the first step looks for what cannot work, in a few more passes without gradients.

    Raises:
        ValueError: an argument cannot work; the message says what would.

    Attributes:
        steps: training steps done.
        net: the module at the present hyperparameters. With a centred response it equals the module itself.
    """

    def __init__(
        self,
        module: nn.Module,
        space: Mapping[str, Uniform],
        train_loss: TrainLoss,
        valid_loss: ValidLoss,
        optimizer: Optimizer,
        valid: Iterable[Batch],
        *,
        method: ResponseOptions | None = None,
        train: Iterable[Batch] | None = None,
        steps_per_epoch: int | None = None,
        response_optimizer: Callable[[Sequence[Tensor]], Optimizer] | None = None,
        autocast: torch.dtype | None = None,
        rows: Callable[[Batch], int] = rows,
        seed: int = 0,
        log: Callable[..., object] | None = None,
        check: bool = True,
    ) -> None:
        checks.arguments(module, space, optimizer)
        load_forward_mode()
        self.module, self.space, self.optimizer = module, dict(space), optimizer
        self.method: ResponseOptions = method or DeltaSTN()
        self._epoch = _epoch(self.method, steps_per_epoch)
        self._rows, self._valid_loss, self._log, self._check = rows, valid_loss, log, check
        self._levels = Levels(
            module,
            self.space,
            self.method,
            (train_loss, valid_loss),
            optimizer,
            response_optimizer or (lambda parameters: _alike(optimizer, parameters)),
            (valid, train),
            rows,
            autocast,
            seed,
        )
        self._idle()

    @property
    def values(self) -> dict[str, float]:
        """The hyperparameters as they are now, in their own units."""
        raw = self._levels.raw.detach()
        return {name: range_.value(raw[i]).item() for i, (name, range_) in enumerate(self.space.items())}

    @property
    def steps(self) -> int:
        """Training steps done."""
        return self._levels.steps

    def step(self, batch: Batch) -> float:
        """Train on a batch, and tune if it is time to; the mean training loss.

        Raises:
            ValueError: the module is not in training mode, or a loss is not as it must be.
            FloatingPointError: a loss is not finite; the weights are those before this step's part that had it.
        """
        if not self.module.training:
            raise ValueError("the module is in evaluation mode: call module.train() before tuner.step(batch)")
        levels, method = self._levels, self.method
        batch = move(batch, levels.device)
        size = self._rows(batch)
        if self._check:
            levels.probe(batch, size)
            self._check = False
        loss = levels.lower(batch, size)
        step = levels.steps + 1
        if step % method.train_steps == 0:
            valid_loss = levels.update(batch, tune=step > method.warm_up * self._epoch)
            self._idle()
            if self._log is not None and valid_loss is not None:
                self._log({"train_loss": loss, "valid_loss": valid_loss, **self.values}, step=step)
        if levels.planes is not None and levels.planes.due(step, self._epoch):
            levels.planes.add(levels.gap())
        levels.steps = step
        return loss

    def _idle(self) -> None:
        """What holds between steps: `net` and tuned dropout at the present hyperparameters."""
        levels = self._levels
        raw = levels.raw.detach().clone()[None]
        values = Values(self.space, raw, levels.noise["idle"])
        self.net = Net(levels.layers, values, None if levels.centred else raw)
        for place in levels.layers.places:
            place.acts_at(values)

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch], **metrics: Callable[[Net, Batch], Tensor]) -> dict[str, float]:
        """Means over all examples, in evaluation mode at the present hyperparameters.

        Args:
            batches: a loader, or any other batches.
            metrics: by name, (net, batch) -> (B,), or their mean (); `valid_loss` is there without being named.

        Raises:
            ValueError: there are no batches, or a metric is of another shape.
        """
        chosen = {"valid_loss": self._valid_loss, **metrics}
        totals, count = dict.fromkeys(chosen, 0.0), 0
        with evaluating(self.module):
            for each in batches:
                batch = move(each, self._levels.device)
                size = self._rows(batch)
                count += size
                for name, metric in chosen.items():
                    found = self._levels.casting(metric)(self.net, batch)
                    if found.dim():
                        found = checks.row_losses(found, size, name).double().mean()
                    totals[name] += found.item() * size
        if not count:
            raise ValueError("there are no batches to evaluate on")
        return {name: total / count for name, total in totals.items()}

    def module_state(self) -> dict[str, Tensor]:
        """The module's state_dict at the present hyperparameters, for a plain module: the response is in its weights.

        With a centred response it is `module.state_dict()`.
        """
        state = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        if not self._levels.centred:
            self._levels.layers.fold(state, self._levels.raw.detach())
        return state

    def to(self, device: torch.device | str) -> Tuner:
        """Go on, module, optimizer and all, on another device; streams of randomness begin anew there."""
        move_to(self._levels, torch.device(device))
        self._idle()
        return self

    def state_dict(self) -> dict[str, Any]:
        """All that the steps to come depend on, module and optimizer included; `torch.save` it.

        A scheduler's and a training loader's state are the caller's; taken between two passes over a loader that
        shuffles with torch's global generator, nothing of the loader's is missing.
        """
        return state_of(self._levels)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken, to the same bits.

        Raises:
            ValueError: it was taken of another space, module or method.
        """
        restore(self._levels, state)
        self._idle()


def _epoch(method: ResponseOptions, steps: int | None) -> int:
    """Steps of an epoch; 1 where nothing counts epochs.

    Raises:
        ValueError: an option counts epochs, and `steps` does not say what one is.
    """
    by_epochs = ["warm_up"] if method.warm_up else []
    if isinstance(method, CPMLHO) and method.cutting_planes and method.cut_steps is None:
        by_epochs.append("cut_every")
    if by_epochs and steps is None:
        instead = ", or cut_steps=..." if "cut_every" in by_epochs else ""
        raise ValueError(f"{' and '.join(by_epochs)} of {type(method).__name__} count epochs: give "
                         f"steps_per_epoch=len(loader){instead}")  # fmt: skip
    return steps or 1


def _alike(optimizer: Optimizer, parameters: Sequence[Tensor]) -> Optimizer:
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
        return kind(parameters, **options)
    except TypeError as error:
        raise ValueError(
            f"no second {kind.__name__} can be made from its options ({error}): give "
            "response_optimizer=lambda parameters: ..."
        ) from error
