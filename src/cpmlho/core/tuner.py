"""The library's public interface: hyperparameters of any module, tuned while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from cpmlho.core import checks, signals
from cpmlho.core import state as saved
from cpmlho.core.bilevel import Batch, Bilevel
from cpmlho.core.descent import Processes
from cpmlho.core.history import Update
from cpmlho.core.loading import move, rows
from cpmlho.core.net import Net
from cpmlho.core.options import CPMLHO, DeltaSTN, ResponseOptions
from cpmlho.core.probe import Probe
from cpmlho.core.response import evaluating, load_forward_mode
from cpmlho.core.signals import Quality
from cpmlho.core.spaces import Space, Uniform, Values

TrainLoss = Callable[[Net, Batch, Values], Tensor]
ValidLoss = Callable[[Net, Batch], Tensor]
WATCHED = 100  # steps between checks for finite losses on a GPU, and updates between checks for values at bounds
AT_BOUND = 0.01  # a value this near to a bound, as a share of its range, is at it


class Tuner:
    """Trains a module and tunes hyperparameters of its training loss at the same time.

    Each `step` trains the module's weights with `optimizer`, and a response: how the weights would change with the
    hyperparameters. Every few steps the hyperparameters descend a loss on validation batches through that response.

    Args:
        module: any module, on its device; its Linear and convolution layers respond. In `DistributedDataParallel` each
            process has a Tuner and batches of its own, and all share their gradients.
        space: the hyperparameters by name.
        train_loss: (net, batch, h) -> (B,), one loss for each example. Call `net` instead of the module; `h.name` is
            (B,), one value for each example; `net.l2()` is half the squared weights of each example.
        valid_loss: (net, batch) -> (B,), or their mean ().
        optimizer: of the module's parameters, without weight decay if decay is tuned.
        valid: batches of validation data, restarted when exhausted; any iterable that can be iterated repeatedly.
        method: `DeltaSTN()`, `STN()` or `CPMLHO(...)` with all their options; None: `DeltaSTN()`.
        train: training batches for the upper level of CPMLHO, restarted likewise; None: the last batch of the step.
        steps_per_epoch: the length of an epoch for the options that count epochs (`warm_up`, `cut_every`).
        response_optimizer: makes an optimizer of the response from its parameter groups; None: one like `optimizer`,
            with its options, but without weight decay. Each group's learning rate is the method's
            `response_learning_rate`, or at each step that of the optimizer's group with the same weights.
        max_norm: the gradients of the weights are clipped to this norm, and likewise those of their response.
        autocast: dtype of the products, `torch.bfloat16` or `torch.float16` with scaled losses; parameters stay as they
            are.
        rows: the number of examples in a batch; None: the length that its tensors share.
        seed: of the perturbations, tuned dropout and the response's start; other randomness comes from torch's global
            generator.
        log: called after each hyperparameter update with numbers by name and `step=`; `mlflow.log_metrics` works.
        check: whether the first step looks for mistakes, in a few passes, and every step for losses
            that are not finite.
        init: the generator of the response's start; None: a stream of `seed`.

    Raises:
        ValueError: an argument cannot work; the message says what would.

    Attributes:
        net: the module at the current hyperparameters. With a centred response it equals the module itself.
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
        response_optimizer: Callable[[list[dict[str, Any]]], Optimizer] | None = None,
        max_norm: float | None = None,
        autocast: torch.dtype | None = None,
        rows: Callable[[Batch], int] = rows,
        seed: int = 0,
        log: Callable[..., object] | None = None,
        check: bool = True,
        init: torch.Generator | None = None,
    ) -> None:
        processes = Processes()
        if isinstance(module, DistributedDataParallel):
            processes, module = Processes(module.process_group), module.module
        checks.arguments(module, space, train_loss, valid_loss, optimizer, valid, method, autocast)
        load_forward_mode()
        self.module, self.space, self.optimizer = module, Space(space), optimizer
        self.method: ResponseOptions = method or DeltaSTN()
        self._log, self._check, self._probe = log, check, check
        self.bilevel = Bilevel(
            module,
            self.space,
            self.method,
            losses=(train_loss, valid_loss),
            optimizer=optimizer,
            response_optimizer=response_optimizer,
            batches=(valid, train),
            rows=rows,
            autocast=autocast,
            steps_per_epoch=_epoch(self.method, steps_per_epoch),
            seed=seed,
            init=init,
            processes=processes,
            max_norm=max_norm,
        )
        self._best: tuple[float, dict[str, Any]] | None = None
        self._finite, self._bound = torch.ones((), dtype=torch.bool, device=self.bilevel.device), set[str]()
        self._idle()

    @property
    def values(self) -> dict[str, float]:
        """The current hyperparameters, in their own units."""
        return self.space.named(self.space.value(self.bilevel.lam.detach()))

    @property
    def steps(self) -> int:
        """Training steps done."""
        return self.bilevel.steps

    @property
    def updates(self) -> int:
        """Hyperparameter updates done."""
        return len(self.bilevel.history) - 1  # the first entry is the start

    @property
    def history(self) -> list[Update]:
        """Step, values and losses of each hyperparameter update, from the start values on; waits for the device."""
        return self.bilevel.history.updates()

    def step(self, batch: Batch, *more: Batch) -> Tensor:
        """Train on a batch, and tune if it is time to; the mean training loss, ().

        Several batches, `tuner.step(*batches)`, make one step on all their examples, in passes of one batch each.

        Raises:
            ValueError: the module is not in training mode, gradients are off, or a loss does not have the right shape.
            FloatingPointError: a loss was not finite, in this step on a CPU, in one of the last 100 steps on a GPU.
        """
        if not self.module.training:
            raise ValueError("the module is in evaluation mode: call module.train() before tuner.step(batch)")
        if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            raise ValueError("gradients are off: call tuner.step outside torch.no_grad() and torch.inference_mode()")
        bilevel = self.bilevel
        batches = [move(each, bilevel.device) for each in (batch, *more)]
        if self._probe:
            self._look(batches[0])
            self._probe = False
        if self._check and (names := bilevel.layers.unfrozen()):
            checks.warn(
                f"these weights were frozen when the Tuner was made, so they train but do not respond: "
                f"{checks.named(names)}; make a new Tuner that starts at tuner.values"
            )
        bilevel.processes.broadcast(self.module.buffers())
        loss, valid_loss = bilevel.step(batches)
        if valid_loss is not None:
            self._idle()
        if self._check:
            self._watch(loss, valid_loss)
            if valid_loss is not None and len(bilevel.history) % WATCHED == 0:
                self._watch_bounds()
        if self._log is not None and valid_loss is not None:
            losses = {"train_loss": loss.item(), "valid_loss": valid_loss.item()}
            self._log({**losses, **self.values}, step=self.steps)
        return loss

    def _look(self, batch: Batch) -> None:
        """The checks of the first step."""
        probe = Probe(self.bilevel)
        probe.train(batch)
        first = self.bilevel.valid.peek() if self.steps == 0 else None  # a resumed loader would start again
        if first is not None:
            probe.valid(move(first, self.bilevel.device))

    def _watch(self, loss: Tensor, valid_loss: Tensor | None) -> None:
        """Check that the losses are finite; on a GPU, wait for the answer in one of 100 steps only."""
        self._finite &= loss.isfinite() if valid_loss is None else loss.isfinite() & valid_loss.isfinite()
        if (loss.device.type == "cpu" or self.steps % WATCHED == 0) and not self._finite:
            self._finite.fill_(True)
            what = "train_loss" if not loss.isfinite() else "valid_loss" if valid_loss is not None else "a loss"
            values = ", ".join(f"{name} {value:.4g}" for name, value in self.values.items())
            raise FloatingPointError(f"{what} is not finite at step {self.steps}, with {values}")

    def _watch_bounds(self) -> None:
        """Say once of each value that it has been at a bound of its range for the last 100 updates."""
        names = [name for name in self.bilevel.history.at_bounds(WATCHED, AT_BOUND) if name not in self._bound]
        self._bound.update(names)
        for name in names:
            range_ = self.space[name]
            checks.warn(
                f"{name} has been at a bound of its range, {range_.low:g} to {range_.high:g}, for {WATCHED} updates "
                f"({self.values[name]:.3g}): the range is too narrow, the bound is best, or the response misleads; "
                "tuner.response_quality(...) compares it with short trainings"
            )

    def _idle(self) -> None:
        """Between steps, `net` and tuned dropout are at the current hyperparameters."""
        bilevel = self.bilevel
        lam = bilevel.lam.detach().clone()[None]
        values = bilevel.values_at(lam, "idle")
        self.net = Net(bilevel.layers, values, None if bilevel.centred else lam)
        for dropout in bilevel.layers.dropouts:
            dropout.use(values)

    @torch.no_grad()
    def evaluate(
        self, batches: Iterable[Batch], *, keep_best: bool = False, **metrics: Callable[[Net, Batch], Tensor]
    ) -> dict[str, float]:
        """Means over all examples, in evaluation mode at the current hyperparameters.

        Args:
            batches: a loader, or any other batches.
            keep_best: remember the whole state if the validation loss is the lowest so far; `load_best` returns to it.
            metrics: by name, (net, batch) -> (B,), or their mean (); `valid_loss` is always included.

        Raises:
            ValueError: there are no batches, or a metric has another shape.
        """
        chosen = {"valid_loss": self.bilevel.valid_loss, **metrics}
        totals, count = dict.fromkeys(chosen, 0.0), 0
        with evaluating(self.module):
            for each in batches:
                batch = move(each, self.bilevel.device)
                size = self.bilevel.rows(batch)
                count += size
                for name, metric in chosen.items():
                    with self.bilevel.casting():
                        found = metric(self.net, batch)
                    if found.dim():
                        found = checks.row_losses(found, size, name).double().mean()
                    totals[name] += found.item() * size
        if not count:
            raise ValueError("there are no batches to evaluate on")
        means = {name: total / count for name, total in totals.items()}
        if keep_best and (self._best is None or means["valid_loss"] < self._best[0]):
            self._best = means["valid_loss"], self.state_dict()
        return means

    def load_best(self) -> float:
        """Return to the state with the lowest validation loss that `evaluate(..., keep_best=True)` saw; that loss.

        Raises:
            ValueError: there is none.
        """
        if self._best is None:
            raise ValueError("no best state is kept: call tuner.evaluate(batches, keep_best=True) while training")
        loss, state = self._best
        self.load_state_dict(state)
        return loss

    def hypergradient(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The gradient of the mean validation loss through the response, by name; tuning steps go against it.

        It is taken on the scale on which values are tuned: lambda, with value = low + (high - low) sigmoid(lambda), or
        the same for logarithms of a `LogUniform`.
        """
        return signals.hypergradient(self.bilevel, batches)

    def response_quality(
        self, train: Iterable[Batch], valid: Iterable[Batch], *, steps: int = 100, shift: float = 0.5
    ) -> Quality:
        """How well the response predicts what other hyperparameters would do: its gradient and a measured one.

        For each hyperparameter the weights train twice for `steps` steps from here, at lambda plus and minus `shift`;
        the tuner continues afterwards as if nothing had been asked.

        Args:
            train: training batches, restarted when exhausted.
            valid: validation batches, all used.
            steps: of each short training; few steps show only a part of what trained weights would.
            shift: of lambda.

        Raises:
            ValueError: the response is not centred, so that the module alone does not predict.
        """
        return signals.response_quality(self.bilevel, [*train], [*valid], steps, shift)

    def module_state(self) -> dict[str, Tensor]:
        """The module's state_dict at the current hyperparameters, for a plain module, with the response in its weights.

        With a centred response it is `module.state_dict()`.
        """
        state = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        if not self.bilevel.centred:
            self.bilevel.layers.fold(state, self.bilevel.lam.detach())
        return state

    def to(self, device: torch.device | str) -> Tuner:
        """Continue, module, optimizer and all, on another device; random streams restart there."""
        saved.to(self.bilevel, torch.device(device))
        self._finite = self._finite.to(device)
        self._idle()
        return self

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on, module and optimizer included; save it with `torch.save`.

        The state of a scheduler and of the training loader is the caller's.
        """
        return saved.state_dict(self.bilevel)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue bit-identically from where `state_dict` was taken.

        Raises:
            ValueError: it belongs to another space, module or method.
        """
        saved.load_state_dict(self.bilevel, dict(state))
        self._idle()


def _epoch(method: ResponseOptions, steps: int | None) -> int:
    """Steps of an epoch; 1 if no option counts epochs.

    Raises:
        ValueError: an option counts epochs, and `steps` does not say how long one is.
    """
    by_epochs = ["warm_up"] if method.warm_up else []
    if isinstance(method, CPMLHO) and method.cutting_planes and method.cut_steps is None:
        by_epochs.append("cut_every")
    if by_epochs and steps is None:
        instead = ", or cut_steps=..." if "cut_every" in by_epochs else ""
        raise ValueError(f"{' and '.join(by_epochs)} of {type(method).__name__} count epochs: give "
                         f"steps_per_epoch=len(loader){instead}")  # fmt: skip
    return steps or 1
