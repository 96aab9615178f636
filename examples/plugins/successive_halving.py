"""Successive halving (Jamieson and Talwalkar 2016): train many points briefly, then the better half for longer."""

from __future__ import annotations

from dataclasses import dataclass

from cpmlho.core.options import Search, least
from cpmlho.study.events import FRESH, Snapshot, Tick
from cpmlho.study.methods import method
from cpmlho.study.methods.random_search import draw


@dataclass(frozen=True, kw_only=True)
class Halving(Search):
    """Options; a trial is one evaluation: 7 trials evaluate 4 points, then 2, then 1."""

    trials: int = least(1, 15)

    def __post_init__(self):
        """Refuse numbers of trials that do not end with one point."""
        super().__post_init__()
        if (self.trials + 1) & self.trials:
            raise ValueError(f"trials must be 1, 3, 7, 15 and so on, got {self.trials}")


def rungs(options):
    """Return the number of rungs (1, 2, 4, … points); each costs one training for the whole budget."""
    return (options.trials + 1).bit_length() - 1


@method(Halving, kind="search", label="SHA", colour="#CC79A7", line="--", trainings=rungs)
def successive_halving(problem, budget, options, past=FRESH):
    """Double the training of the half with the lower validation loss until one point has used the budget."""
    from cpmlho.study.problem import predictor
    from cpmlho.study.trials import FixedTraining, fraction, score, values_at

    first = (options.trials + 1) // 2
    points = draw(problem, budget, options)[:first]
    values = [values_at(problem, fraction(options, point)) for point in points]
    trainings = [FixedTraining(problem, budget, each) for each in values]
    if past.state:
        for training, state in zip(trainings, past.state["trainings"], strict=True):
            training.restore(state)
    told, alive, losses, done, total = list(past.metrics), list(range(first)), {}, 0, 0
    iterations = budget.iterations(problem)
    while alive:
        steps = budget.epochs * iterations // len(alive)
        for i in alive:
            total += steps - done
            if not told:
                for _ in range(steps - done):
                    trainings[i].step()
                yield Tick(total // iterations)
                now, where = predictor(trainings[i].module), problem.space.named(values[i])
                state = {"trainings": [each.state() for each in trainings]}
                metrics = yield Snapshot(total // iterations, total, now, where, state=lambda state=state: state)
            losses[i] = score(told.pop(0) if told else metrics)
        done, alive = steps, sorted(alive, key=losses.get)[: len(alive) // 2]
