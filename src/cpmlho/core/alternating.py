"""The alternation that Delta-STN, STN and CPMLHO share: general, response and hyperparameter steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cpmlho.core.events import PlaneState, State
from cpmlho.core.graphs import Replayed
from cpmlho.core.options import ResponseOptions as Options
from cpmlho.core.planes import CuttingPlanes, gap
from cpmlho.core.problem import Batches, Conditions, Problem
from cpmlho.core.response import Displacement, General, displaced
from cpmlho.core.steps import Batch, RMSprop, Trainable, flat, general_gradients, joint_gradients, response_gradients

Part = tuple[Tensor, Tensor, str]  # inputs and labels of a batch of the upper level, and its stream of noise
ENTROPY_CONSTANT = 0.5 * math.log(2 * math.pi * math.e)  # of a normal distribution, beside log sigma


class Alternation:
    """The state of one run and its steps.

    Args:
        problem: data, network and losses.
        conditions: of the training.
        options: of the method.
        theta: weight of the validation loss in the mixed-level objective (eq. 15); None for the validation loss alone.
        planes: the cutting planes that constrain the response; None for none.
        regularised: whether the training loss of the upper level has dropout and cutout (R22).
    """

    def __init__(
        self,
        problem: Problem,
        conditions: Conditions,
        options: Options,
        theta: float | None = None,
        planes: CuttingPlanes | None = None,
        regularised: bool = False,
    ) -> None:
        self.problem, self.conditions, self.options = problem, conditions, options
        self.theta, self.planes = theta, planes
        self.streams = streams = conditions.streams(problem)
        general, response = problem.initialise(streams.host("init"))
        momentum = conditions.training.momentum
        self.general = Trainable(general, conditions.dtype, momentum)
        self.response = Trainable(response, conditions.dtype, momentum)
        self.raw = problem.space.raw(problem.space.start).requires_grad_()  # lambda
        spread = math.log(math.expm1(options.perturbation_scale))
        self.spread = torch.full_like(problem.space.start, spread).requires_grad_()  # sigma = softplus(spread)
        self.optimizer = RMSprop([self.raw, self.spread], options.hyper_learning_rate)
        self.train = conditions.batches(problem.train, streams.host("train_order"))
        self.valid = conditions.batches(problem.valid, streams.host("valid_order"))
        self.upper = conditions.batches(problem.train, streams.host("upper_order"))
        self.noise = {name: streams.device(f"{name}_noise") for name in ("general", "response", "valid", "upper")}
        self.upper_masks = streams.device("upper_masks") if regularised else None
        self._replay_lower, self._replay_upper = Replayed(conditions.graphs), Replayed(conditions.graphs)
        self.gradient: list[Tensor] = []  # of the loss, at the last response step
        self.used = torch.zeros_like(self.raw)  # d of the last response step, on the mean over the batch

    def state(self) -> State:
        """All that the steps to come depend on."""
        return {
            "parameters": self._parameters(),
            "streams": self.streams.state(),
            "left": [batches.left.clone() for batches in self._batches()],
            "planes": self.planes.state() if self.planes is not None else None,
        }

    def restore(self, state: State) -> None:
        """Restore from `state`."""
        torch._foreach_copy_(self._parameters(), state["parameters"])
        self.general.refresh()
        self.response.refresh()
        self.streams.restore(state["streams"])
        for batches, left in zip(self._batches(), state["left"], strict=True):
            batches.left = left
        if self.planes is not None:
            self.planes.restore(state["planes"])

    def _parameters(self) -> list[Tensor]:
        upper = (self.raw.detach(), self.spread.detach(), *self.optimizer.square_averages)
        velocities = (*self.general.velocities, *self.response.velocities)
        return [*flat(self.general.masters), *flat(self.response.masters), *upper, *velocities, self.used]

    def _batches(self) -> list[Batches]:
        return [self.train, self.valid, self.upper]

    @property
    def centred(self) -> bool:
        """Whether the response vanishes at the present lambda (Delta-STN) or at lambda = 0 (STN), R4."""
        return self.options.response == "delta_stn"

    @property
    def centre(self) -> Tensor:
        """The lambda (n,) at which the response vanishes."""
        return self.raw.detach() if self.centred else torch.zeros_like(self.raw)

    @property
    def coordinates(self) -> Tensor | None:
        """The coordinates (n,) at which the planes take w_h; None where they hold R itself (R3)."""
        assert self.planes is not None
        return self.planes.coordinates(self.problem.space, self.raw.detach(), self.used)

    def iterate(self) -> None:
        """One general step and one response step, on the same batch with masks of their own; or both in one (R4)."""
        self._replay_lower(self._iterate, *next(self.train), case=len(self.planes) if self.planes is not None else 0)

    def _iterate(self, inputs: Tensor, labels: Tensor) -> None:
        problem, rate = self.problem, self.conditions.training.learning_rate
        batch, raw = (inputs, labels), self.raw.detach()
        displaced = raw + self._perturbation(len(labels), "response").detach()
        displacement = Displacement(self.response.working, displaced - self.centre)
        values = problem.space.values(displaced)
        if self.options.response == "stn_joint":
            own, self.gradient = joint_gradients(
                problem, self.general, batch, values, self.noise["response"], displacement
            )
            self.general.descend(rate, own)
        else:
            self._general_step(batch)
            self.gradient = response_gradients(
                problem, self.general, batch, values, self.noise["response"], displacement, linearise=self.centred
            )
        self.used.copy_(displacement.d.mean(0))
        pulls = [self._pull()] if self.planes else []
        self.response.descend(self.options.response_learning_rate or rate, self.gradient, *pulls)  # eq. 14

    def _general_step(self, batch: Batch) -> None:
        """Eq. 13, at lambda."""
        raw = self.raw.detach()
        uncentred = None if self.centred else Displacement(self.response.working, raw)
        values = self.problem.space.values(raw)
        gradients = general_gradients(self.problem, self.general, batch, values, self.noise["general"], uncentred)
        self.general.descend(self.conditions.training.learning_rate, gradients)

    def update(self, tune: bool) -> None:
        """The multipliers' step and, unless the warm-up goes on, the hyperparameter steps of one update before it."""
        for _ in range(self.options.valid_steps if tune else 0):
            self.hyperparameter_step()
        if self.planes:
            self.planes.ascend(self._gap())

    def cut(self) -> None:
        """Take a plane."""
        assert self.planes is not None
        self.planes.add(self._gap())

    def plane_states(self, epoch: int, step: int) -> list[PlaneState]:
        """The state of each plane; of none before the first."""
        if not self.planes:
            return []
        share = _norm(self._pull()) / _norm(self.gradient)
        return self.planes.states(epoch, step, self._gap(), share.item())

    def hyperparameter_step(self) -> None:
        """One step on lambda and sigma (eq. 15), through the response, in full; dropout and cutout off, but for R22."""
        self._replay_upper(self._tune, *next(self.valid), *(next(self.upper) if self.theta is not None else ()))

    def _tune(self, *batches: Tensor) -> None:
        parts = list(zip(batches[::2], batches[1::2], ("valid", "upper"), strict=False))
        displaced = [self.raw + self._perturbation(len(labels), name) for _, labels, name in parts]
        losses = self._regularised(parts, displaced) if self.upper_masks is not None else self._plain(parts, displaced)
        loss = losses[0] if self.theta is None else losses[1] + self.theta * losses[0]
        entropy = (F.softplus(self.spread).log() + ENTROPY_CONSTANT).sum()
        objective = loss - self.options.entropy_weight * entropy
        self.optimizer.step(torch.autograd.grad(objective, [self.raw, self.spread]))

    def _plain(self, parts: Sequence[Part], displaced: Sequence[Tensor]) -> list[Tensor]:
        """The losses of the upper level's batches, all in one pass."""
        inputs = torch.cat([part[0] for part in parts]).to(self.conditions.dtype)
        displacement = Displacement(self.response.working, torch.cat(list(displaced)) - self.centre)
        logits = self.problem.network.forward(inputs, self.general.working, None, displacement)
        pieces = logits.split([len(labels) for _, labels, _ in parts])
        return [self.problem.loss(piece, labels) for piece, (_, labels, _) in zip(pieces, parts, strict=True)]

    def _regularised(self, parts: Sequence[Part], displaced: Sequence[Tensor]) -> list[Tensor]:
        """The same, the training batch with dropout and cutout at perturbed values, which are not differentiated."""
        losses = self._plain(parts[:1], displaced[:1])
        for (inputs, labels, _), at in zip(parts[1:], displaced[1:], strict=True):
            assert self.upper_masks is not None
            values = self.problem.space.values(at.detach())
            regularisers = self.problem.regularisers(values, self.upper_masks)
            augmented = regularisers.augment(inputs).to(self.conditions.dtype)
            displacement = Displacement(self.response.working, at - self.centre)
            outputs = self.problem.network.forward(augmented, self.general.working, regularisers, displacement)
            losses.append(self.problem.train_loss(outputs, labels, values))
        return losses

    def _gap(self) -> list[Tensor]:
        """w_e - w_h at the present iterate."""
        return gap(self.general.masters, self.response.masters, self.coordinates)

    def _pull(self) -> list[Tensor]:
        """The planes' gradient with respect to R, r and H, layer by layer."""
        assert self.planes is not None
        return flat(self.planes.gradient(self.general.masters, self.response.masters, self.coordinates))

    def _perturbation(self, batch: int, name: str) -> Tensor:
        """epsilon ~ N(0, sigma^2), (batch, n), differentiable in sigma."""
        shape = (batch, len(self.raw))
        normal = torch.empty(shape, device=self.raw.device).normal_(generator=self.noise[name])
        return normal * F.softplus(self.spread)

    def predict(self, inputs: Tensor) -> Tensor:
        """The network at lambda, dropout and cutout off."""
        displacement = None
        if not self.centred:
            displacement = Displacement(self.response.masters, self.raw.detach().expand(len(inputs), -1))
        return self.problem.network.forward(inputs, self.general.masters, None, displacement)

    def weights(self) -> list[General]:
        """The network's own weights at lambda, the response in them."""
        general = self.general.masters
        return general if self.centred else displaced(general, self.response.masters, self.raw.detach())


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t.float()) for t in tensors]))
    return norm
