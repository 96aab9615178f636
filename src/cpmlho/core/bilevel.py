"""The algorithm: Delta-STN (Bae and Grosse 2020), STN (MacKay et al. 2019) and CPMLHO (Yang et al. 2022).

Two levels share a network. The inner level trains its weights w_e at the hyperparameters lambda (eq. 13), and at
perturbed ones a response w_h (eq. 14): how the weights would change with lambda. The outer level descends a loss on
validation data through the response (eqs. 15-16). CPMLHO adds cutting planes to eq. 14 (eqs. 10-12, `planes.py`) and
the training loss to eq. 15. `response.py` has the layers that respond (eqs. 3-4).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from cpmlho.core import checks
from cpmlho.core.descent import Descent, Processes, added, alike, response_groups, rmsprop
from cpmlho.core.history import History
from cpmlho.core.loading import Endless, move
from cpmlho.core.net import Net
from cpmlho.core.options import CPMLHO, DeltaSTN, ResponseOptions
from cpmlho.core.planes import CuttingPlanes, gap
from cpmlho.core.response import Layers, evaluating, still_statistics
from cpmlho.core.spaces import Space, Values
from cpmlho.core.streams import Streams

PASSES = ("general", "response", "valid", "upper")  # each has a random stream for perturbations and for dropout
Batch = Any


class Bilevel:
    """The state of both levels, and their steps.

    Arguments as `Tuner`.

    Attributes:
        lam: lambda (n,).
        rho: the perturbation's standard deviation is sigma = softplus(rho), (n,).
        layers: the layers that respond, with R, r and H.
        planes: the cutting planes; None without them.
        delta_mean: displacement (n,) of the last response step, averaged over the batch.
        steps: training steps done.
        history: lambda and the losses of each hyperparameter update.
    """

    def __init__(
        self,
        module: nn.Module,
        space: Space,
        method: ResponseOptions,
        *,
        losses: tuple[Callable[..., Any], Callable[..., Any]],
        optimizer: Optimizer,
        response_optimizer: Callable[[list[dict[str, Any]]], Optimizer] | None,
        batches: tuple[Iterable[Batch], Iterable[Batch] | None],
        rows: Callable[[Batch], int],
        autocast: torch.dtype | None,
        steps_per_epoch: int,
        seed: int,
        init: torch.Generator | None,
        processes: Processes,
        max_norm: float | None,
    ) -> None:
        self.module, self.space, self.method, self.optimizer = module, space, method, optimizer
        self.train_loss, self.valid_loss = losses
        self.rows, self._autocast, self._seed, self._epoch = rows, autocast, seed, steps_per_epoch
        self.processes = processes
        valid, train = batches
        self.valid, self.upper = Endless("valid", valid), Endless("train", train) if train is not None else None
        self.set_streams(next(module.parameters()).device)
        scaler = torch.amp.GradScaler(self.device.type, enabled=autocast is torch.float16)
        self.descent = Descent(processes, scaler, max_norm)
        rank = method.rank if isinstance(method, DeltaSTN) else 1
        self.layers = Layers(module, len(space), method, init or self.streams.host("init"), rank)
        processes.broadcast(self.layers.parameters)
        checks.places(self.layers, space)
        self.lam = self.layers.parameters[0].new_tensor(space.start()).requires_grad_()
        rho = math.log(math.expm1(method.perturbation_scale))
        self.rho = torch.full_like(self.lam.detach(), rho).requires_grad_()
        rates = space.relative_rates(method.hyper_learning_rate)
        self._rates = self.lam.new_tensor(rates) if rates is not None else None
        self.hyper_optimizer = rmsprop([self.lam, self.rho], method)
        self._groups = response_groups(self.layers, optimizer)
        make = response_optimizer or (lambda groups: alike(optimizer, groups))
        self.response_optimizer = make([{"params": [*group]} for group in self._groups.values()])
        constrained = isinstance(method, CPMLHO) and method.cutting_planes
        self.planes = CuttingPlanes(method, len(self.layers.names), self.device) if constrained else None  # type: ignore[arg-type]
        self.delta_mean = torch.zeros_like(self.lam.detach())
        self.loss_grad: Sequence[Tensor | None] = []  # of R, r and H at the last response step
        self._deltas: list[Tensor] = []  # displacements of the response step, one tensor (B, n) for each batch
        self.steps, self.history = 0, History(space, self.lam)

    def step(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor | None]:
        """One training iteration and, every `train_steps` of them, a hyperparameter update; their losses, ()."""
        method, valid_loss = self.method, None
        loss = self.inner_step(batches)
        self.steps += 1
        if self.steps % method.train_steps == 0:
            if self.steps > method.warm_up * self._epoch + method.warm_up_steps:
                valid_loss = [self.outer_step(batches[-1]) for _ in range(method.valid_steps)][-1]
                self.history.add(self.steps, self.lam, loss, valid_loss)
            if self.planes:
                self.planes.ascend(self.gap())  # the multipliers' step
        if self.planes is not None and self.planes.due(self.steps, self._epoch):
            self.planes.add(self.gap())
        return loss, valid_loss

    def inner_step(self, batches: Sequence[Batch]) -> Tensor:
        """Eqs. 13 and 14: a step of the module's weights at lambda, then one of their response at lambda + epsilon."""
        parameters = [p for group in self.layers.trained for p in group]
        self._deltas = []
        if self.method.response == "stn_joint":  # both steps along the gradients of one loss (R4)
            own = [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]
            loss, gradients = self._gradient(self._responding_loss, batches, [*own, *parameters])
            self._descend(self.optimizer, own, gradients[: len(own)])
            gradients = gradients[len(own) :]
        else:
            loss = self.general_step(batches)
            with still_statistics(self.module):
                _, gradients = self._gradient(self._responding_loss, batches, parameters)
        self.loss_grad = gradients
        self.delta_mean.copy_(torch.cat(self._deltas).mean(0))
        self.processes.average([self.delta_mean])
        if self.planes:
            gradients = [*self._constrained(gradients)]
        self._descend(self.response_optimizer, parameters, gradients)  # eq. 14
        self.layers.follow()
        return loss

    def general_step(self, batches: Sequence[Batch]) -> Tensor:
        """Eq. 13: one step of the module's weights at lambda; the mean loss, ()."""
        own = [p for p in self.module.parameters() if p.requires_grad]
        loss, gradients = self._gradient(self._general_loss, batches, own)
        if self.steps == 0:
            checks.untrained(self.module, self.optimizer, gradients)
        self._descend(self.optimizer, own, gradients)
        return loss

    def outer_step(self, batch: Batch) -> Tensor:
        """Eqs. 15 and 16: one step of lambda and sigma through the response; the validation loss, ()."""
        valid_loss = self._perturbed_validation_loss(move(next(self.valid), self.device), "valid")
        objective = valid_loss
        if isinstance(self.method, CPMLHO) and self.method.mixed_level:
            training = batch if self.upper is None else move(next(self.upper), self.device)
            objective = self._upper_training_loss(training) + self.method.theta * valid_loss
        entropy = F.softplus(self.rho).log().sum()  # of the perturbation, up to a constant
        objective = objective - self.method.entropy_weight * entropy
        variables, before = [self.lam, self.rho], self.lam.detach().clone()
        self._descend(self.hyper_optimizer, variables, self.descent.gradient(objective, variables))
        if self._rates is not None:
            self.lam.detach().copy_(before.lerp(self.lam.detach(), self._rates.to(before)))
        return self._shared(valid_loss)

    @property
    def centred(self) -> bool:
        """Whether the response vanishes at the current lambda (Delta-STN), or at lambda = 0 (STN), R4."""
        return self.method.response in ("delta_stn", "temperature")

    def perturbation(self, size: int, stream: str) -> Tensor:
        """epsilon ~ N(0, sigma^2), (size, n), differentiable in rho."""
        joint = torch.empty(size * self.processes.size, len(self.space), device=self.device, dtype=self.lam.dtype)
        return self.processes.share(joint.normal_(generator=self.noise[stream])) * F.softplus(self.rho)

    def _general_loss(self, batch: Batch) -> Tensor:
        here = self.lam.detach().expand(self.rows(batch), -1)
        return self.training_loss(batch, here, None if self.centred else here, "general")

    def _responding_loss(self, batch: Batch) -> Tensor:
        lam = self.lam.detach()
        perturbed = lam + self.perturbation(self.rows(batch), "response").detach()
        delta = perturbed - lam if self.centred else perturbed
        self._deltas.append(delta)
        return self.training_loss(batch, perturbed, delta, "response", linear=self.centred)

    def training_loss(
        self, batch: Batch, lam: Tensor, delta: Tensor | None, stream: str, *, linear: bool = False
    ) -> Tensor:
        """The mean training loss, (), at the values of lambda (B, n) and the displacement delta (B, n).

        Raises:
            ValueError: the losses are not one for each example.
        """
        values = self.values_at(lam, stream)
        with self.casting():
            losses = self.train_loss(Net(self.layers, values, delta, linear=linear), batch, values)
        return checks.row_losses(losses, len(lam), "train_loss").mean()

    def _perturbed_validation_loss(self, batch: Batch, stream: str) -> Tensor:
        return self.validation_loss(batch, self.lam + self.perturbation(self.rows(batch), stream), stream)

    def validation_loss(self, batch: Batch, lam: Tensor, stream: str) -> Tensor:
        """The mean validation loss, (), at these lambda (B, n), differentiable in them through the response.

        Raises:
            ValueError: it is neither one loss for each example nor their mean.
        """
        net = Net(self.layers, self.values_at(lam.detach(), stream), self._displacement(lam))
        with evaluating(self.module), still_statistics(self.module), self.casting():
            losses = self.valid_loss(net, batch)
        if not isinstance(losses, Tensor) or losses.dim():
            losses = checks.row_losses(losses, len(lam), "valid_loss")
        return losses.mean()

    def _upper_training_loss(self, batch: Batch) -> Tensor:
        """L_tr of eq. 15: taken like the validation loss (R16), or like the lower level's loss (R22)."""
        assert isinstance(self.method, CPMLHO)
        if not self.method.upper_regularised:
            return self._perturbed_validation_loss(batch, "upper")
        lam = self.lam + self.perturbation(self.rows(batch), "upper")
        with still_statistics(self.module):
            return self.training_loss(batch, lam.detach(), self._displacement(lam), "masks")

    def _displacement(self, lam: Tensor) -> Tensor:
        return lam - self.lam.detach() if self.centred else lam

    def values_at(self, lam: Tensor, stream: str) -> Values:
        """The hyperparameters' values at lambda (B, n), with the random stream of a pass."""
        return Values(self.space, self.space.value(lam), self.draws[stream])

    def _gradient(
        self, loss: Callable[[Batch], Tensor], batches: Sequence[Batch], variables: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """A mean loss over all examples of the batches, () and without a graph, and its gradients."""
        first = loss(batches[0])
        if len(batches) == 1:
            return self._shared(first), self.descent.gradient(first, variables)
        sizes = [self.rows(batch) for batch in batches]
        part = first * (sizes[0] / sum(sizes))
        total, gradients = part.detach(), self.descent.gradient(part, variables)
        for batch, size in zip(batches[1:], sizes[1:], strict=True):
            part = loss(batch) * (size / sum(sizes))
            total, gradients = total + part.detach(), added(gradients, self.descent.gradient(part, variables))
        return self._shared(total), gradients

    def _shared(self, loss: Tensor) -> Tensor:
        """The mean of a loss over all processes, without a graph."""
        shared = loss.detach()
        self.processes.average([shared])
        return shared

    def _descend(self, optimizer: Optimizer, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        """One step of an optimizer along these gradients."""
        if optimizer is self.response_optimizer:
            for group, source in zip(optimizer.param_groups, self._groups, strict=False):
                group["lr"] = self.method.response_learning_rate or self.optimizer.param_groups[source]["lr"]
        self.descent.step(optimizer, parameters, gradients, clip=optimizer is not self.hyper_optimizer)

    @torch.no_grad()
    def _constrained(self, gradients: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """The gradients of eq. 14: those of the loss plus those of the planes (eq. 12)."""
        assert self.planes is not None
        return (*self.planes.constrained(gradients, self.layers.general, self.layers.response, self.coordinates()),)

    def gradient_share(self) -> float:
        """Norm of the planes' gradient over that of the loss's gradient at the last response step."""
        planes = torch._foreach_norm(self._constrained([None] * len(self.loss_grad)))
        loss = torch._foreach_norm([g for g in self.loss_grad if g is not None])
        share: float = (torch.stack(planes).norm() / torch.stack(loss).norm()).item()
        return share

    @torch.no_grad()
    def gap(self) -> list[Tensor]:
        """v = w_e - w_h at the current iterate."""
        return gap(self.layers.general, self.layers.response, self.coordinates())

    def coordinates(self) -> Tensor | None:
        """The coordinates at which the planes take w_h (R3)."""
        assert self.planes is not None
        return self.planes.coordinates(self.space, self.lam.detach(), self.delta_mean)

    def casting(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast, if it is wanted."""
        if self._autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self._autocast)

    def set_streams(self, device: torch.device) -> None:
        """Start the random streams from their beginning, on `device`."""
        self.device, self.streams = device, Streams(self._seed, device)
        self.noise = {name: self.streams.device(f"{name}_noise") for name in (*PASSES, "idle")}
        self.noise["masks"] = self.streams.device("upper_masks")  # of a regularised upper level (R22)
        rank = self.processes.rank  # each process perturbs its rows of the joint batch, with other masks
        self.draws = {name: self.streams.device(f"{name}_draws/{rank}") for name in self.noise} if rank else self.noise
