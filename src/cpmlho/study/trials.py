"""Searches: trials at fixed hyperparameters, each one full training (R11).

All trials share initialisation, order and noise, because the random streams restart with each trial.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Event

import torch
from torch import Tensor, nn

from cpmlho.core.augment import Dropout
from cpmlho.core.options import Search
from cpmlho.core.spaces import Values
from cpmlho.study.events import WORST_LOSS, Cost, Method, Metrics, Past, Snapshot, State, Tick
from cpmlho.study.problem import Budget, Problem, predictor

# Yields points (n,) of the unit cube, and receives the validation loss of each.
Proposals = Generator[Tensor, float, None]


def search(problem: Problem, budget: Budget, proposals: Proposals, past: Past) -> Method:
    """Train each proposal for the whole budget and send back its validation loss; past trials are not repeated."""
    done = iter(past.metrics)
    trial, point = 0, next(proposals)
    while True:
        metrics = next(done, None)
        if metrics is None:
            training = FixedTraining(problem, budget, values_at(problem, point))
            for epoch in range(1, budget.epochs + 1):
                for _ in range(budget.iterations(problem)):
                    training.step()
                yield Tick(trial * budget.epochs + epoch)
            metrics = yield snapshot(problem, budget, trial, point, training.module)
            assert metrics is not None
        trial += 1
        try:
            point = proposals.send(score(metrics))
        except StopIteration:
            return


def search_all(problem: Problem, budget: Budget, points: Sequence[Tensor], past: Past) -> Method:
    """Train independent points, in parallel with several workers; on a CPU their number changes no result."""
    if budget.workers == 1:
        yield from search(problem, budget, in_turn(points), past)
        return
    first = len(past.metrics)
    for trial, (module, cost) in enumerate(train_all(problem, budget, points[first:]), first):
        yield snapshot(problem, budget, trial, points[trial], module, cost)


def in_turn(points: Sequence[Tensor]) -> Proposals:
    """Yield the points one after another; the losses are ignored."""
    for point in points:  # noqa: UP028  (a list takes no sent values)
        yield point


def snapshot(
    problem: Problem, budget: Budget, trial: int, point: Tensor, module: nn.Module, cost: Cost | None = None
) -> Snapshot:
    """Return the snapshot of a finished trial; the first trial is 0."""
    epochs = (trial + 1) * budget.epochs
    steps, values = epochs * budget.iterations(problem), problem.space.named(values_at(problem, point))
    return Snapshot(epochs, steps, predictor(module), values, weights=module.state_dict, cost=cost)


def score(metrics: Metrics) -> float:
    """Return the loss to report for a trial; after divergence, a finite one that is worse than any other."""
    return WORST_LOSS if metrics.diverged else metrics.val_loss


LOGIT_BOUND = 5.0  # a search that is uniform in lambda draws it from [-5, 5]: 0.0067 to 0.9933 of the range


def fraction(options: Search, point: Tensor) -> Tensor:
    """Return each value as a fraction of its range (n,), for a point of the unit cube (n,) (R11)."""
    return point if options.prior == "uniform" else torch.sigmoid(LOGIT_BOUND * (2 * point - 1))


def start_point(problem: Problem, options: Search) -> Tensor:
    """Return the point of the unit cube (n,) for the start values."""
    if options.prior == "uniform":
        return torch.tensor([each.unit(each.first) for each in problem.space.values()])
    return ((torch.tensor(problem.space.start()) / LOGIT_BOUND + 1) / 2).clamp(0, 1)


def values_at(problem: Problem, point: Tensor) -> Tensor:
    """Return the hyperparameter values (n,) at a point (n,) of the unit cube, on the device."""
    return problem.space.at(point.to(problem.device))


class FixedTraining:
    """Training at fixed hyperparameter values (n,); each instance restarts the random streams.

    Attributes:
        module: the network, trained in place.
    """

    def __init__(self, problem: Problem, budget: Budget, values: Tensor) -> None:
        self._problem, self._budget = problem, budget
        self._streams = streams = budget.streams(problem)
        self.module = problem.module(streams.host("init"))
        self._optimizer = budget.optimizer(self.module)
        self._batches = budget.batches(problem.train, streams.host("train_order"))
        size = min(budget.training.batch_size, len(problem.train))
        self._values = Values(problem.space, values.expand(size, -1), streams.device("general_noise"))
        for part in self.module.modules():
            if isinstance(part, Dropout):
                part.use(self._values)

    def step(self) -> Tensor:
        """Make one training iteration and return its loss, ()."""
        self._optimizer.zero_grad()
        with self._budget.casting(self._problem.device):
            loss = self._problem.train_loss(self.module, next(self._batches), self._values).mean()
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def state(self) -> State:
        """Return everything that later steps depend on."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "streams": self._streams.state_dict(),
            "batches": self._batches.state_dict(),
        }

    def restore(self, state: State) -> None:
        """Continue from `state`."""
        self.module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._streams.load_state_dict(state["streams"])
        self._batches.load_state_dict(state["batches"])


def train_all(problem: Problem, budget: Budget, points: Sequence[Tensor]) -> Iterator[tuple[nn.Module, Cost]]:
    """Yield the trained network of each point, in order; each worker has a thread, and on a GPU a stream.

    Threads suffice, because torch releases Python's lock while it computes. They share the data in memory.
    """
    stopped = Event()

    def train(point: Tensor) -> tuple[nn.Module, Cost]:
        torch.set_num_threads(1)  # holds for one thread only
        wall, cpu = time.perf_counter(), time.thread_time()
        cuda = torch.cuda.Stream(problem.device) if problem.device.type == "cuda" else None
        with torch.cuda.stream(cuda) if cuda else nullcontext():
            training = FixedTraining(problem, budget, values_at(problem, point))
            for _ in range(budget.epochs * budget.iterations(problem)):
                if stopped.is_set():
                    break
                training.step()
        if cuda:
            cuda.synchronize()
        return training.module, Cost(time.perf_counter() - wall, time.thread_time() - cpu)

    with ThreadPoolExecutor(budget.workers) as pool:
        try:
            yield from pool.map(train, points)
        finally:  # if the run ends early, the threads stop too
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
