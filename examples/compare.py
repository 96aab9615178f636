"""Compare `cpmlho.Tuner`, Optuna, random search and population-based training at equal processor time.

An MLP learns scikit-learn's digits from 200 examples, so that it overfits and six hyperparameters matter. The tuned
training sets the processor time that the others get. All methods know the same ranges and start values: the searches
try the start values first, and the population starts near them.
"""

import copy
import math
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from common import train

try:
    import optuna
    from sklearn.datasets import load_digits
except ImportError:
    raise SystemExit("this example needs Optuna and scikit-learn: pip install optuna scikit-learn") from None
from torch import nn

import cpmlho

SEEDS, STEPS, BATCH = 5, 2000, 50
MORE_TIME = 4  # the searches also get this many times the tuner's time
MEMBERS, ROUNDS = 4, 20  # of population-based training
T = 2.776  # Student's t, 97.5 %, SEEDS - 1 degrees of freedom
SPACE = {
    "input_dropout": cpmlho.Uniform(0, 0.9, start=0.1),
    "dropout1": cpmlho.Uniform(0, 0.9, start=0.1),
    "dropout2": cpmlho.Uniform(0, 0.9, start=0.1),
    "noise": cpmlho.Uniform(0, 2, start=0.1),
    "smoothing": cpmlho.Uniform(0, 0.5, start=0.1),
    "decay": cpmlho.LogUniform(1e-6, 1e-1, start=1e-4),
}
START = {name: range_.start for name, range_ in SPACE.items()}
pixels, labels = load_digits(return_X_y=True)
inputs, labels = torch.tensor(pixels, dtype=torch.float32) / 8 - 1, torch.tensor(labels)


class Task:
    """A split of the digits and an initial network, both from the seed."""

    def __init__(self, seed):
        self.seed = seed
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
        self.train, self.valid, self.test = ((inputs[i], labels[i]) for i in order.split([200, 500, 1097]))

    def make(self, values):
        """Make the module and its optimizer; without values, a tuner gives the dropout rates."""
        torch.manual_seed(self.seed)
        sizes = {"input_dropout": (64, 128), "dropout1": (128, 128), "dropout2": (128, 10)}
        stages = []
        for name, (before, after) in sizes.items():
            stages += [nn.ReLU()] * bool(stages)
            stages += [cpmlho.Dropout(name, fixed=values.get(name)), nn.Linear(before, after)]
        module = nn.Sequential(*stages)
        return module, torch.optim.Adam(module.parameters(), 1e-3)

    def batches(self, steps):
        """Give random batches of the training examples."""
        for _ in range(steps):
            chosen = torch.randint(len(self.train[0]), (BATCH,))
            yield self.train[0][chosen], self.train[1][chosen]

    def trial(self, values):
        """Return validation and test loss after a whole training at fixed values."""
        module, optimizer = self.make(values)
        train(module, optimizer, train_loss, values, self.batches(STEPS))
        return self.losses(module)

    @torch.no_grad()
    def losses(self, module):
        """Return validation and test loss."""
        module.eval()
        found = tuple(valid_loss(module, part).mean().item() for part in (self.valid, self.test))
        module.train()
        return found


def train_loss(net, batch, h):
    log_p = net(cpmlho.noise(batch[0], h.noise, generator=h.generator)).log_softmax(1)
    right = log_p.gather(1, batch[1][:, None])[:, 0]
    return -(1 - h.smoothing) * right - h.smoothing * log_p.mean(1) + h.decay * net.l2()


def valid_loss(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1], reduction="none")


def tuned(task):
    """Train once with a tuner."""
    module, optimizer = task.make({})
    tuner = cpmlho.Tuner(module, SPACE, train_loss, valid_loss, optimizer, [task.valid], seed=task.seed)
    for batch in task.batches(STEPS):
        tuner.step(batch)
    return task.losses(module)


def search(task, sampler, seconds):
    """Return validation loss, test loss and time at the end of each trial until the time is over."""
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial(START)
    began, trials = time.process_time(), []
    while not trials or trials[-1][2] < seconds:
        asked = study.ask()
        values = {
            name: asked.suggest_float(name, range_.low, range_.high, log=isinstance(range_, cpmlho.LogUniform))
            for name, range_ in SPACE.items()
        }
        valid, test = task.trial(values)
        study.tell(asked, valid)
        trials.append((valid, test, time.process_time() - began))
    return trials


def best(trials, seconds):
    """Return the losses of the best trial by validation loss among those that started in time, and their number."""
    started = [trial for trial, before in zip(trials, [0.0, *(t[2] for t in trials)], strict=False) if before < seconds]
    return *min(started)[:2], len(started)


def population(task, seconds):
    """Population-based training (Jaderberg et al. 2017): a varied copy of the best member replaces the worst."""
    draws = torch.Generator().manual_seed(task.seed)
    members = []
    for _ in range(MEMBERS):
        values = varied(START, draws)
        members.append((*task.make(values), values))
    began = time.process_time()
    for part in range(1, ROUNDS + 1):
        while time.process_time() - began < seconds * part / ROUNDS:
            for module, optimizer, values in members:
                train(module, optimizer, train_loss, values, task.batches(10))
        members.sort(key=lambda member: task.losses(member[0])[0])
        found = task.losses(members[0][0])
        module, optimizer, values = copy.deepcopy(members[0])
        members[-1] = module, optimizer, varied(values, draws)
        for layer in module:
            if isinstance(layer, cpmlho.Dropout):
                layer.fixed = members[-1][2][layer.name]
    return found


def varied(values, draws):
    """Move each value by a normal step on the unbounded scale of `range_.value`."""
    steps = torch.randn(len(SPACE), generator=draws)
    return {
        name: range_.value(torch.tensor(position(range_, values[name])).logit() + step).item()
        for (name, range_), step in zip(SPACE.items(), steps, strict=True)
    }


def position(range_, value):
    """Return where the value lies in its range, from 0 to 1."""
    if isinstance(range_, cpmlho.LogUniform):
        return math.log(value / range_.low) / math.log(range_.high / range_.low)
    return (value - range_.low) / (range_.high - range_.low)


def main():
    """Run all methods on all seeds and print the table."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows: dict[str, list[float]] = {}
    for seed in range(SEEDS):
        task = Task(seed)
        began = time.process_time()
        found = {"cpmlho.Tuner": tuned(task)}
        seconds = time.process_time() - began
        found["start values, no tuning"] = task.trial(START)
        for label, sampler in (
            ("Optuna TPE", optuna.samplers.TPESampler),
            ("random search", optuna.samplers.RandomSampler),
        ):
            trials = search(task, sampler(seed=seed), MORE_TIME * seconds)
            for times in (1, MORE_TIME):
                *losses, count = best(trials, times * seconds)
                found[f"{label}, {times} × the time"] = losses
                print(f"seed {seed}: {label} ran {count} trials in {times * seconds:.1f} s", file=sys.stderr)
        found["population-based training"] = population(task, seconds)
        for label, (_, test) in found.items():
            rows.setdefault(label, []).append(test)
    ours = rows["cpmlho.Tuner"]
    print("| method | test loss: mean (lowest, highest) | minus cpmlho.Tuner's: mean [95 % interval] |\n|---|---|---|")
    for label, tests in rows.items():
        gaps = [test - our for test, our in zip(tests, ours, strict=True)]
        mean, half = statistics.mean(gaps), T * statistics.stdev(gaps) / SEEDS**0.5
        gap = f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]".replace("-", "−") if any(gaps) else "–"
        print(f"| {label} | {statistics.mean(tests):.3f} ({min(tests):.3f}, {max(tests):.3f}) | {gap} |")


if __name__ == "__main__":
    main()
