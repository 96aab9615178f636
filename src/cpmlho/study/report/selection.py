"""Which runs of a protocol each figure draws, from the protocol alone: the workflow asks before there is any run.

Each function takes one specification for each dataset and method (`specs`). Nothing here imports pandas or matplotlib.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

from cpmlho.study.methods import METHODS
from cpmlho.study.protocol import Protocol
from cpmlho.study.report.rules import Reading, rules
from cpmlho.study.spec import RunSpec

FIGURE1, FIGURE2 = "mnist", "dropout0"  # the dataset of the paper's figures; the hyperparameter of the second
FEWEST_SPECIFICATIONS = 6  # of a dataset; fewer need no figure
CENTRED = ("delta_stn", "temperature")  # responses
RESPONSE_ALONE = {"response", "response_start", "response_weights"}  # settings that decide which response learns
RESPONSE = RESPONSE_ALONE | {"warm_up_steps", "cutting_planes", "mixed_level"}
_NAMES = {"dataset", "method", "seed", "changes", "data_dir", "device", "cuda_graphs"}  # what a run is, and where

Specs = Sequence[RunSpec]


def specs(protocol: Protocol) -> list[RunSpec]:
    """One specification for each dataset and method, with the first seed of its runs."""
    first = {key[:2]: key for key in reversed(list(protocol.keys()))}
    return [protocol.resolve(key) for key in reversed(first.values())]


def unvaried(specs: Specs, dataset: str) -> list[str]:
    """The methods that run on a dataset with the protocol's own settings."""
    return [spec.method for spec in specs if spec.dataset == dataset and spec.method == spec.algorithm]


def comparisons(specs: Specs) -> list[tuple[str, Reading, list[str]]]:
    """Datasets and readings of CPMLHO with the methods to compare: its own baseline first, none of another reading."""
    found = []
    responsive = {name for reading in rules().readings for name in (reading.method, reading.own)}
    for reading in rules().readings:
        for dataset in dict.fromkeys(spec.dataset for spec in specs):
            run = unvaried(specs, dataset)
            others = [name for name in run if name == reading.own]
            others += [name for name in run if name not in responsive]
            if reading.method in run and others:
                found.append((dataset, reading, others))
    return found


def schedules(specs: Specs) -> dict[str, list[str]]:
    """The methods that tune while they train on MNIST: by reading of CPMLHO, own baseline first, then all others."""
    left = [name for name in unvaried(specs, FIGURE1) if METHODS[name].kind == "schedule"]
    read = [reading for reading in rules().readings if reading.method in left]
    rows = {reading.name: [name for name in (reading.own, reading.method) if name in left] for reading in read}
    others = [name for name in left if not any(name in row for row in rows.values())]
    return {**rows, "other": others} if rows and others else rows


def searches(specs: Specs) -> list[str]:
    """The searches that run, if another method does too."""
    kinds = {spec.method: METHODS[spec.algorithm].kind for spec in specs if spec.method == spec.algorithm}
    return [name for name, kind in kinds.items() if kind == "search"] if len(set(kinds.values())) > 1 else []


def starts(specs: Specs) -> dict[str, dict[float, str]]:
    """For each reading of CPMLHO on MNIST, the runs that change the start of dropout0 and nothing else, by start."""
    found: dict[str, dict[float, str]] = {}
    for reading in rules().readings:
        own = {
            spec.changes["start"][FIGURE2]: spec.method
            for spec in specs
            if (spec.dataset, spec.algorithm) == (FIGURE1, reading.method)
            and list(spec.changes) == ["start"]
            and list(spec.changes["start"]) == [FIGURE2]
        }
        if own:
            found[reading.name] = dict(sorted(own.items()))
    return found


def rates(specs: Specs) -> dict[tuple[str, str], dict[float, str]]:
    """By dataset and method, the runs that change the learning rate alone, by rate, if there is more than one rate."""
    found: dict[tuple[str, str], dict[float, str]] = defaultdict(dict)
    for spec in specs:
        if spec.changes in ({}, {"training": {"learning_rate": spec.training.learning_rate}}):
            found[spec.dataset, spec.algorithm][spec.training.learning_rate] = spec.method
    return {key: dict(sorted(own.items())) for key, own in found.items() if len(own) > 1}


def is_specification(spec: RunSpec) -> bool:
    """Whether a run is of CPMLHO with both parts in another reading of the paper, with all step sizes as they are."""
    settings, changes = asdict(spec.settings), spec.changes
    if spec.algorithm not in {each.method for each in rules().readings}:
        return False
    other = changes.keys() - {"settings", "training", "split", "epochs"} or changes.get("training", {}).keys() - {
        "momentum"
    }
    tuned = changes.get("settings", {}).keys() & {"response_learning_rate", "hyper_learning_rate", "mu_init"}
    longer = "epochs" in changes and "training" not in changes  # momentum needs a budget of its own
    return bool(settings["cutting_planes"] and settings["mixed_level"] and not (other or tuned or longer))


def specifications(specs: Specs) -> list[str]:
    """The datasets with enough specifications of CPMLHO for a curve."""
    of = [spec.dataset for spec in specs if is_specification(spec)]
    return [dataset for dataset in dict.fromkeys(of) if of.count(dataset) >= FEWEST_SPECIFICATIONS]


class Sizes(NamedTuple):
    """A method that runs on several numbers of training examples, and the baseline that it is compared with."""

    dataset: str
    spec: RunSpec
    runs: dict[Size, str]
    fixed: dict[Size, str]  # training without tuning


Size = tuple[int | None, float]  # examples of the training file (None: all), the fraction of them that validates


def sizes(specs: Specs) -> list[Sizes]:
    """Each method with `fixed` beside it on two or more numbers of training examples; epochs may differ."""
    lines: dict[tuple[str, str], dict[str, list[RunSpec]]] = defaultdict(lambda: defaultdict(list))
    for spec in specs:
        lines[spec.dataset, _conditions(spec, any_size=True)][spec.model_dump_json(include={"settings"})].append(spec)
    found = []
    for (dataset, _), methods in lines.items():
        by_size = {name: {_size(spec): spec.method for spec in reversed(own)} for name, own in methods.items()}
        untuned = [name for name, own in methods.items() if _is_untuned(own[0])]
        for name, own in methods.items():
            fixed = by_size[untuned[0]] if untuned else {}
            if name not in untuned and len(by_size[name].keys() & fixed.keys()) > 1:
                found.append(Sizes(dataset, own[0], by_size[name], fixed))
    return found


def outcomes(specs: Specs) -> list[RunSpec]:
    """The methods and variants that differ from training without tuning in the method alone, on a random split."""
    untuned = [spec for spec in specs if _is_untuned(spec) and spec.split == "random" and not spec.changes]
    seeds = {spec.dataset: spec.seed for spec in reversed(untuned)}
    return [spec for spec in specs if spec.seed == seeds.get(spec.dataset) and spec.changes.keys() <= {"settings"}]


def responses(specs: Specs) -> list[str]:
    """Delta-STN on MNIST with other responses and with each part of CPMLHO; none without another response."""
    found = [
        spec
        for spec in outcomes(specs)
        if spec.dataset == FIGURE1
        and getattr(spec.settings, "response", "") in CENTRED
        and spec.changes.get("settings", {}).keys() <= RESPONSE
    ]
    others = any(RESPONSE_ALONE & spec.changes.get("settings", {}).keys() for spec in found)
    return [spec.method for spec in found] if others else []


def _is_untuned(spec: RunSpec) -> bool:
    return spec.algorithm == "fixed" and spec.values_of is None


def _size(spec: RunSpec) -> Size:
    return spec.data.examples, spec.valid_fraction


def _conditions(spec: RunSpec, *, any_size: bool = False) -> str:
    """What decides a run's numbers besides its method, as text; with `any_size`, without examples and epochs."""
    content = spec.model_dump(mode="json", exclude=_NAMES | {"settings"})
    for name in ("examples", "epochs", "evaluate_every") if any_size else ():
        del content["data"][name]
    if any_size:
        del content["valid_fraction"]
    return json.dumps(content, sort_keys=True)
