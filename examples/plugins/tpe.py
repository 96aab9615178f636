"""Tree-structured Parzen estimators (Bergstra et al. 2011), from Optuna: ask for a point, train, tell its loss."""

from __future__ import annotations

from dataclasses import dataclass

from cpmlho.core.options import Search, least
from cpmlho.study.events import FRESH
from cpmlho.study.methods import method


@dataclass(frozen=True, kw_only=True)
class TPE(Search):
    """Options; the first `initial_trials` are random."""

    initial_trials: int = least(1, 5)


@method(TPE, kind="search", label="TPE", colour="#56B4E9", line="--")
def tpe(problem, budget, options, past=FRESH):
    """Train `trials` points one after another."""
    from cpmlho.study.trials import search

    return search(problem, budget, propose(problem, budget, options), past)


def propose(problem, budget, options):
    """Yield points of the unit cube; receive the validation loss of each."""
    import optuna
    import torch

    from cpmlho.study.trials import fraction, start_point

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = budget.streams(problem).number("search")
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(n_startup_trials=options.initial_trials, seed=seed))
    names = list(problem.space)
    if options.from_start:
        study.enqueue_trial(dict(zip(names, start_point(problem, options).tolist(), strict=True)))
    for _ in range(options.trials):
        trial = study.ask({name: optuna.distributions.FloatDistribution(0, 1) for name in names})
        loss = yield fraction(options, torch.tensor([trial.params[name] for name in names]))
        study.tell(trial, loss)
