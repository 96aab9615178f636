"""The steps of the two levels around a module: its own weights, their response, and the hyperparameters."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from cpmlho.core import checks
from cpmlho.core.hooks import Layers, evaluating, still_statistics
from cpmlho.core.loading import Endless, move
from cpmlho.core.methods import CPMLHO
from cpmlho.core.net import Net
from cpmlho.core.options import ResponseOptions
from cpmlho.core.planes import CuttingPlanes, gap
from cpmlho.core.space import Space
from cpmlho.core.spaces import Ranges, Uniform, Values
from cpmlho.core.steps import RMSprop
from cpmlho.core.streams import Streams

STREAMS = ("general", "response", "valid", "upper")  # of perturbations, and of what acts at the values in each pass
Batch = Any


class Levels:
    """What a Tuner computes; arguments as there.

    Attributes:
        raw: lambda (n,).
        spread: sigma = softplus(spread), (n,).
        layers: that respond.
        planes: on the response; None: no planes constrain it.
        used: displacement (n,) of the last response step, on the mean over the batch.
        steps: training steps done.
    """

    def __init__(
        self,
        module: nn.Module,
        space: dict[str, Uniform],
        method: ResponseOptions,
        losses: tuple[Callable[..., Any], Callable[..., Any]],
        optimizer: Optimizer,
        response_optimizer: Callable[[Sequence[Tensor]], Optimizer],
        batches: tuple[Iterable[Batch], Iterable[Batch] | None],
        rows: Callable[[Batch], int],
        autocast: torch.dtype | None,
        seed: int,
    ) -> None:
        self.module, self.space, self.method, self.optimizer = module, space, method, optimizer
        self._train_loss, self._valid_loss = losses
        self._rows, self._autocast, self._seed = rows, autocast, seed
        valid, train = batches
        self.valid, self.upper = Endless("valid", valid), Endless("train", train) if train is not None else None
        self.set_streams(next(module.parameters()).device)
        self.layers = Layers(module, len(space), self.streams.host("init"))
        checks.places(self.layers, space)
        raw = [range_.raw(range_.first) for range_ in space.values()]
        self.raw = self.layers.parameters[0].new_tensor(raw).requires_grad_()
        spread = math.log(math.expm1(method.perturbation_scale))
        self.spread = torch.full_like(self.raw.detach(), spread).requires_grad_()
        self.upper_optimizer = RMSprop([self.raw, self.spread], method.hyper_learning_rate)
        self.response_optimizer = response_optimizer(self.layers.parameters)
        constrained = isinstance(method, CPMLHO) and method.cutting_planes
        self.planes = CuttingPlanes(method, len(self.layers.names), self.device) if constrained else None  # type: ignore[arg-type]
        self.used = torch.zeros_like(self.raw.detach())
        self.steps = 0

    def set_streams(self, device: torch.device) -> None:
        """Streams of randomness from their beginning, on `device`."""
        self.device, self.streams = device, Streams(self._seed, device)
        self.noise = {name: self.streams.device(f"{name}_noise") for name in (*STREAMS, "idle")}
        self.noise["masks"] = self.streams.device("upper_masks")  # of a regularised upper level (R22)

    @property
    def centred(self) -> bool:
        """Whether the response vanishes at the present lambda (Delta-STN), or at lambda = 0 (STN), R4."""
        return self.method.response == "delta_stn"

    def displacement(self, raw: Tensor) -> Tensor:
        """d of unconstrained hyperparameters (B, n)."""
        return raw - self.raw.detach() if self.centred else raw

    def probe(self, batch: Batch, size: int) -> None:
        """Look for what cannot work; raises as `checks.Probe.run`."""
        checks.Probe(self.layers, self.space, self.casting(self._train_loss), self.raw, batch, size).run(self.optimizer)

    def lower(self, batch: Batch, size: int) -> float:
        """One step of the module's own weights (eq. 13) and one of the response (eq. 14); the first one's loss."""
        self.optimizer.zero_grad()
        raw = self.raw.detach() + self.perturbation(size, "response").detach()
        d = self.displacement(raw)
        joint = self.method.response == "stn_joint"
        if not joint:
            loss = self._general_step(batch, size)
        with contextlib.ExitStack() as stack:
            if not joint:
                stack.enter_context(self._held())
                stack.enter_context(still_statistics(self.module))
            stack.enter_context(_differentiated(self.layers.parameters))
            found = self._training_losses(batch, raw, d, "response", linear=self.centred).mean()
            found.backward()
        self._descend(d)
        if joint:
            self.optimizer.step()
            return found.item()
        return loss

    def _general_step(self, batch: Batch, size: int) -> float:
        raw = self.raw.detach().expand(size, -1)
        loss = self._training_losses(batch, raw, None if self.centred else raw, "general").mean()
        loss.backward()
        if self.steps == 0:
            checks.untrained(self.module, self.optimizer)
        self.optimizer.step()
        return loss.item()

    def _descend(self, d: Tensor) -> None:
        """Step the response along its gradients and the planes'."""
        self.used.copy_(d.mean(0))
        if self.planes:
            pulls = self.planes.gradient(self.layers.general, self.layers.response, self._coordinates())
            for parameter, pull in zip(self.layers.parameters, (t for each in pulls for t in each), strict=True):
                parameter.grad = pull if parameter.grad is None else parameter.grad.add_(pull)
        for group in self.response_optimizer.param_groups:
            group["lr"] = self.method.response_learning_rate or self.optimizer.param_groups[0]["lr"]
        self.response_optimizer.step()
        self.response_optimizer.zero_grad()

    def update(self, batch: Batch, *, tune: bool) -> float | None:
        """The multipliers' step and, if `tune`, the hyperparameter steps before it; the validation loss of the last."""
        loss = None
        for _ in range(self.method.valid_steps if tune else 0):
            loss = self._hyperparameter_step(batch)
        if self.planes:
            self.planes.ascend(self.gap())
        return loss

    def _hyperparameter_step(self, batch: Batch) -> float:
        """One step of lambda and sigma through the response (eq. 15)."""
        with self._held():
            valid_loss = self._upper_loss(move(next(self.valid), self.device), "valid")
            objective = valid_loss
            if isinstance(self.method, CPMLHO) and self.method.mixed_level:
                training = batch if self.upper is None else move(next(self.upper), self.device)
                objective = self._upper_training_loss(training) + self.method.theta * valid_loss
            entropy = F.softplus(self.spread).log().sum()  # but for a constant
            objective = objective - self.method.entropy_weight * entropy
            self.upper_optimizer.step(torch.autograd.grad(objective, [self.raw, self.spread]))
        return valid_loss.item()

    def _upper_training_loss(self, batch: Batch) -> Tensor:
        """L_tr: as the validation loss (R16), or as in the lower level (R22)."""
        assert isinstance(self.method, CPMLHO)
        if not self.method.upper_regularised:
            return self._upper_loss(batch, "upper")
        raw = self.raw + self.perturbation(self._rows(batch), "upper")
        with still_statistics(self.module):
            return self._training_losses(batch, raw.detach(), self.displacement(raw), "masks").mean()

    def _upper_loss(self, batch: Batch, stream: str) -> Tensor:
        raw = self.raw + self.perturbation(self._rows(batch), stream)
        net = Net(self.layers, Values(self.space, raw.detach(), self.noise[stream]), self.displacement(raw))
        with evaluating(self.module):
            losses = self.casting(self._valid_loss)(net, batch)
        if not isinstance(losses, Tensor) or losses.dim():
            losses = checks.row_losses(losses, len(raw), "valid_loss")
        return self._finite(losses, "valid_loss").mean()

    def _training_losses(
        self, batch: Batch, raw: Tensor, d: Tensor | None, stream: str, *, linear: bool = False
    ) -> Tensor:
        values = Values(self.space, raw, self.noise[stream])
        losses = self.casting(self._train_loss)(Net(self.layers, values, d, linear=linear), batch, values)
        return self._finite(checks.row_losses(losses, len(raw), "train_loss"), f"train_loss ({stream} pass)")

    def _finite(self, losses: Tensor, what: str) -> Tensor:
        """The losses, if all are numbers.

        Raises:
            FloatingPointError: with the step and the hyperparameters.
        """
        if bad := int((~losses.isfinite()).sum()):
            named = zip(self.space, Ranges(self.space).values(self.raw.detach()).tolist(), strict=True)
            values = ", ".join(f"{name} {value:.4g}" for name, value in named)
            raise FloatingPointError(
                f"{what} is not finite for {bad} of {losses.numel()} examples at step {self.steps + 1}, with {values}"
            )
        return losses

    def perturbation(self, size: int, stream: str) -> Tensor:
        """epsilon ~ N(0, sigma^2), (size, n), differentiable in sigma."""
        normal = torch.empty(size, len(self.space), device=self.device, dtype=self.raw.dtype)
        return normal.normal_(generator=self.noise[stream]) * F.softplus(self.spread)

    def gap(self) -> list[Tensor]:
        """w_e - w_h at the present iterate."""
        return gap(self.layers.general, self.layers.response, self._coordinates())

    def _coordinates(self) -> Tensor | None:
        """Where the planes take w_h (R3)."""
        assert self.planes is not None
        ranges = cast(Space, Ranges(self.space))  # of which the planes ask for values alone
        return self.planes.coordinates(ranges, self.raw.detach(), self.used)

    def casting(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """The loss under autocast, if it is wanted."""
        return loss if self._autocast is None else torch.autocast(self.device.type, self._autocast)(loss)

    def _held(self) -> contextlib.AbstractContextManager[None]:
        """Autograd does not see the module's own parameters."""
        return _undifferentiated([p for p in self.module.parameters() if p.requires_grad])


@contextlib.contextmanager
def _differentiated(parameters: Sequence[Tensor]) -> Iterator[None]:
    for p in parameters:
        p.requires_grad_()
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(False)


@contextlib.contextmanager
def _undifferentiated(parameters: Sequence[Tensor]) -> Iterator[None]:
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_()
