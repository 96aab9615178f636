"""Searches: trials at fixed hyperparameters, each one full training (R11).

All trials share initialisation, order and noise, as the streams start anew with each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Event

import torch
from torch import Tensor

from cpmlho.core.events import WORST_LOSS, Cost, Method, Metrics, Past, Snapshot, State, Tick
from cpmlho.core.graphs import Replayed
from cpmlho.core.options import Search
from cpmlho.core.problem import Conditions, Problem
from cpmlho.core.response import General
from cpmlho.core.steps import Trainable, flat, general_gradients

# Proposes points (n,) of the unit cube; is sent each one's validation loss.
Proposals = Generator[Tensor, float, None]


def search(problem: Problem, conditions: Conditions, proposals: Proposals, past: Past) -> Method:
    """Train each proposal for the whole budget and tell its validation loss; past trials are told, not trained."""
    done = iter(past.metrics)
    trial, point = 0, next(proposals)
    while True:
        metrics = next(done, None)
        if metrics is None:
            training = FixedTraining(problem, conditions, values_at(problem, point))
            for epoch in range(1, conditions.epochs + 1):
                for _ in range(conditions.iterations(problem)):
                    training.step()
                yield Tick(trial * conditions.epochs + epoch)
            metrics = yield snapshot(problem, conditions, trial, point, training.general.masters)
            assert metrics is not None
        trial += 1
        try:
            point = proposals.send(score(metrics))
        except StopIteration:
            return


def search_all(problem: Problem, conditions: Conditions, points: Sequence[Tensor], past: Past) -> Method:
    """Train points that do not depend on each other; with workers side by side, to the same bits on a CPU."""
    if conditions.workers == 1:
        yield from search(problem, conditions, in_turn(points), past)
        return
    first = len(past.metrics)
    for trial, (general, cost) in enumerate(train_all(problem, conditions, points[first:]), first):
        yield snapshot(problem, conditions, trial, points[trial], general, cost)


def in_turn(points: Sequence[Tensor]) -> Proposals:
    """Proposals that heed no loss."""
    for point in points:  # noqa: UP028  (a list takes no sent values)
        yield point


def snapshot(
    problem: Problem,
    conditions: Conditions,
    trial: int,
    point: Tensor,
    general: Sequence[General],
    cost: Cost | None = None,
) -> Snapshot:
    """A finished trial, the first being 0: the network with dropout and cutout off."""
    epochs = (trial + 1) * conditions.epochs
    steps, values = epochs * conditions.iterations(problem), problem.space.named(values_at(problem, point))
    return Snapshot(epochs, steps, predictor(problem, general), values, weights=lambda: general, cost=cost)


def predictor(problem: Problem, general: Sequence[General]) -> Callable[[Tensor], Tensor]:
    """The network at these parameters, dropout and cutout off."""
    return lambda inputs: problem.network.forward(inputs, general)


def score(metrics: Metrics) -> float:
    """The loss that a proposal is told: of a trial that diverged, one that is finite and worse than any other."""
    return WORST_LOSS if metrics.diverged else metrics.val_loss


LOGIT_BOUND = 5.0  # of lambda, where a search draws it uniformly: 0.0067 to 0.9933 of the range


def fraction(options: Search, point: Tensor) -> Tensor:
    """Where in its range each value lies, from a point of the unit cube on which a search draws (R11)."""
    return point if options.prior == "uniform" else torch.sigmoid(LOGIT_BOUND * (2 * point - 1))


def start_point(problem: Problem, options: Search) -> Tensor:
    """The point of the unit cube at the start values."""
    space = problem.space
    if options.prior == "uniform":
        return ((space.start - space.low) / (space.high - space.low)).cpu()
    return ((space.raw(space.start) / LOGIT_BOUND + 1) / 2).clamp(0, 1).cpu()


def values_at(problem: Problem, point: Tensor) -> Tensor:
    """Hyperparameter values (n,) at a point (n,) of the unit cube, on the device."""
    return problem.space.from_unit(point.to(problem.device))


class FixedTraining:
    """Training at fixed hyperparameter values (n,); the streams start anew with each.

    Attributes:
        general: the parameters, stepped in place.
    """

    def __init__(self, problem: Problem, conditions: Conditions, values: Tensor) -> None:
        self._problem, self._values, self._rate = problem, values, conditions.training.learning_rate
        self._streams = streams = conditions.streams(problem)
        general, _ = problem.initialise(streams.host("init"))  # the response's, drawn after them, do not matter here
        self.general = Trainable(general, conditions.dtype, conditions.training.momentum)
        self._batches = conditions.batches(problem.train, streams.host("train_order"))
        self._noise = streams.device("general_noise")
        self._replayed = Replayed(conditions.graphs)

    def step(self) -> None:
        """One training iteration."""
        self._replayed(self._step, *next(self._batches))

    def _step(self, inputs: Tensor, labels: Tensor) -> None:
        gradients = general_gradients(self._problem, self.general, (inputs, labels), self._values, self._noise)
        self.general.descend(self._rate, gradients)

    def _parameters(self) -> list[Tensor]:
        return [*flat(self.general.masters), *self.general.velocities]

    def state(self) -> State:
        """All that the steps to come depend on."""
        return {
            "parameters": self._parameters(),
            "streams": self._streams.state(),
            "left": self._batches.left.clone(),
        }

    def restore(self, state: State) -> None:
        """Restore from `state`."""
        torch._foreach_copy_(self._parameters(), state["parameters"])
        self.general.refresh()
        self._streams.restore(state["streams"])
        self._batches.left = state["left"]


def train_all(
    problem: Problem, conditions: Conditions, points: Sequence[Tensor]
) -> Iterator[tuple[list[General], Cost]]:
    """The trained parameters of each point, in order; a thread, or a stream of the GPU, for each worker.

    torch lets go of Python's lock while it computes, so that threads suffice and the data are held once.
    """
    stopped = Event()

    def train(point: Tensor) -> tuple[list[General], Cost]:
        torch.set_num_threads(1)  # holds for one thread only
        wall, cpu = time.perf_counter(), time.thread_time()
        cuda = torch.cuda.Stream(problem.device) if problem.device.type == "cuda" else None
        with torch.cuda.stream(cuda) if cuda else nullcontext():
            training = FixedTraining(problem, conditions, values_at(problem, point))
            for _ in range(conditions.epochs * conditions.iterations(problem)):
                if stopped.is_set():
                    break
                training.step()
        if cuda:
            cuda.synchronize()
        return training.general.masters, Cost(time.perf_counter() - wall, time.thread_time() - cpu)

    with ThreadPoolExecutor(conditions.workers) as pool:
        try:
            yield from pool.map(train, points)
        finally:  # the run ends early: let no thread train on
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
