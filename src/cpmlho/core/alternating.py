"""The alternation that Delta-STN, STN and CPMLHO share: general, response and hyperparameter steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cpmlho.core.events import Method, Past, Snapshot, State
from cpmlho.core.planes import CuttingPlanes, gap
from cpmlho.core.problem import Batches, Problem
from cpmlho.core.steps import RMSprop, Trained, flat, general_step, response_step
from cpmlho.study.results import HYPERPARAMETERS, PLANES, Row
from cpmlho.study.settings import Response as Settings

ENTROPY_CONSTANT = 0.5 * math.log(2 * math.pi * math.e)  # of a normal distribution, beside log sigma


class Alternation:
    """The state of one run and its steps.

    Args:
        problem: data, network and losses.
        settings: of the method.
        theta: weight of the validation loss in the mixed-level objective (eq. 15); None for the validation loss alone.
        planes: the cutting planes that constrain the response; None for none.
    """

    def __init__(
        self, problem: Problem, settings: Settings, theta: float | None = None, planes: CuttingPlanes | None = None
    ) -> None:
        self.problem, self.settings, self.theta, self.planes = problem, settings, theta, planes
        self.streams = streams = problem.streams()
        general, response = problem.initialise(streams.host("init"))
        self.general, self.response = Trained(general, problem.dtype), Trained(response, problem.dtype)
        self.raw = problem.space.raw(problem.space.start).requires_grad_()  # lambda
        spread = math.log(math.expm1(settings.perturbation_scale))
        self.spread = torch.full_like(problem.space.start, spread).requires_grad_()  # sigma = softplus(spread)
        self.optimizer = RMSprop([self.raw, self.spread], settings.hyper_learning_rate)
        self.train = problem.batches(problem.train, streams.host("train_order"))
        self.valid = problem.batches(problem.valid, streams.host("valid_order"))
        self.upper = problem.batches(problem.train, streams.host("upper_order"))
        self.noise = {name: streams.device(f"{name}_noise") for name in ("general", "response", "valid", "upper")}
        self.gradient: list[Tensor] = []  # of the loss, at the last response step

    def state(self) -> State:
        """All that the steps to come depend on."""
        return {
            "parameters": self._parameters(),
            "streams": self.streams.state(),
            "left": [batches.left.clone() for batches in self._batches()],
            "planes": self.planes.state() if self.planes is not None else None,
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken of."""
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
        return [*flat(self.general.masters), *flat(self.response.masters), *upper]

    def _batches(self) -> list[Batches]:
        return [self.train, self.valid, self.upper]

    @property
    def centred(self) -> bool:
        """Whether the response vanishes at the present lambda (Delta-STN) or at lambda = 0 (STN), R4."""
        return self.settings.response == "delta_stn"

    @property
    def centre(self) -> Tensor:
        """The lambda (n,) at which the response vanishes."""
        return self.raw.detach() if self.centred else torch.zeros_like(self.raw)

    @property
    def at(self) -> Tensor:
        """The lambda (n,) at which the planes take w_h."""
        assert self.planes is not None
        return self.planes.at(self.problem.space, self.raw.detach())

    def iterate(self) -> None:
        """One general step and one response step, on the same batch with masks of their own."""
        problem, rate = self.problem, self.problem.training.learning_rate
        batch, raw = next(self.train), self.raw.detach()
        uncentred = () if self.centred else (self.response.working, raw)
        general_step(problem, self.general, batch, problem.space.values(raw), self.noise["general"], *uncentred)
        displaced = raw + self._perturbation(len(batch[1]), "response").detach()
        self.gradient = response_step(
            problem,
            self.general.working,
            self.response.working,
            batch,
            displaced,
            self.centre,
            self.noise["response"],
            linearise=self.centred,
        )
        pulls = [self._pull()] if self.planes else []
        self.response.descend(rate, self.gradient, *pulls)  # eq. 14

    def update(self) -> None:
        """The hyperparameter steps of one update, and the multipliers' step."""
        for _ in range(self.settings.valid_steps):
            self.hyperparameter_step()
        if self.planes:
            self.planes.ascend(self._gap())

    def cut(self, epoch: int, step: int) -> list[Row]:
        """Take a plane if one is due after this epoch; a row for each active plane, none before the first."""
        assert self.planes is not None
        v = self._gap()
        if self.planes.due(epoch):
            self.planes.add(v)
        if not self.planes:
            return []
        share = _norm(self._pull()) / _norm(self.gradient)
        return self.planes.rows(epoch, step, v, share.item())

    def hyperparameter_step(self) -> None:
        """One step on lambda and sigma (eq. 15): dropout and cutout off, through the response, in full (R16)."""
        parts = [(*next(self.valid), "valid")]
        if self.theta is not None:
            parts.append((*next(self.upper), "upper"))
        inputs = torch.cat([part[0] for part in parts]).to(self.problem.dtype)
        displaced = torch.cat([self.raw + self._perturbation(len(labels), name) for _, labels, name in parts])
        logits = self.problem.network.forward(
            inputs, self.general.working, None, self.response.working, displaced - self.centre
        )
        pieces = logits.split([len(labels) for _, labels, _ in parts])
        losses = [self.problem.loss(piece, labels) for piece, (_, labels, _) in zip(pieces, parts, strict=True)]
        loss = losses[0] if self.theta is None else losses[1] + self.theta * losses[0]
        entropy = (F.softplus(self.spread).log() + ENTROPY_CONSTANT).sum()
        objective = loss - self.settings.entropy_weight * entropy
        self.optimizer.step(torch.autograd.grad(objective, [self.raw, self.spread]))

    def _gap(self) -> list[Tensor]:
        """w_e - w_h at the present iterate."""
        return gap(self.general.masters, self.response.masters, self.at)

    def _pull(self) -> list[Tensor]:
        """The planes' gradient with respect to R, r and H, layer by layer."""
        assert self.planes is not None
        return flat(self.planes.gradient(self.response.masters, self.at))

    def _perturbation(self, batch: int, name: str) -> Tensor:
        """epsilon ~ N(0, sigma^2), (batch, n), differentiable in sigma."""
        shape = (batch, len(self.raw))
        normal = torch.empty(shape, device=self.raw.device).normal_(generator=self.noise[name])
        return normal * F.softplus(self.spread)

    def predict(self, inputs: Tensor) -> Tensor:
        """The network at lambda, dropout and cutout off."""
        if self.centred:
            return self.problem.network.forward(inputs, self.general.masters)
        return self.problem.network.forward(
            inputs, self.general.masters, None, self.response.masters, self.raw.detach().expand(len(inputs), -1)
        )


def alternate(
    problem: Problem, settings: Settings, past: Past, theta: float | None = None, planes: CuttingPlanes | None = None
) -> Method:
    """Train with hyperparameters that are tuned on the way; a snapshot after each epoch. Arguments as `Alternation`."""
    run = Alternation(problem, settings, theta, planes)
    if past.state is not None:
        run.restore(past.state)
    space, done = problem.space, len(past.metrics)
    step = done * problem.iterations
    update = step // settings.train_steps
    trajectory = [] if done else [(0, 0, space.start)]
    for epoch in range(done + 1, problem.epochs + 1):
        for _ in range(problem.iterations):
            run.iterate()
            step += 1
            if step % settings.train_steps == 0:
                run.update()
                update += 1
                trajectory.append((update, step, space.values(run.raw.detach())))
        tables = {HYPERPARAMETERS: _rows(problem, trajectory)}
        trajectory = []
        if planes is not None and (rows := run.cut(epoch, step)):
            tables[PLANES] = rows
        yield Snapshot(epoch, step, run.predict, space.named(space.values(run.raw.detach())), tables, run.state)


def _rows(problem: Problem, trajectory: Sequence[tuple[int, int, Tensor]]) -> list[Row]:
    """Rows of hyperparameters.csv; one transfer from the device for all of them."""
    if not trajectory:
        return []
    values = torch.stack([point for _, _, point in trajectory]).cpu()
    heads = [{"update": update, "step": step} for update, step, _ in trajectory]
    return [{**head, **problem.space.named(row)} for head, row in zip(heads, values, strict=True)]


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t.float()) for t in tensors]))
    return norm
