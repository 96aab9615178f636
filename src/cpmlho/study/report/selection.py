"""Which runs of a protocol each figure draws, from the protocol alone: the workflow asks before there is any run.

Each function takes one specification for each dataset and method (`specs`). Nothing here imports pandas or matplotlib.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from cpmlho.study.methods import METHODS
from cpmlho.study.protocol import Protocol
from cpmlho.study.report.rules import PAPERS, Reading, rules
from cpmlho.study.spec import RunSpec

FIGURE1, FIGURE2 = "mnist", "dropout0"  # the dataset of the paper's figures; the hyperparameter of the second
FEWEST_SPECIFICATIONS, FEWEST_OPTIONS = 6, 3  # of a dataset; fewer need no figure
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


def tuned_rates(specs: Specs) -> list[tuple[str, str]]:
    """Datasets and methods that run at more than one learning rate, with nothing else changed."""
    return list(
        dict.fromkeys(
            (spec.dataset, spec.algorithm)
            for spec in specs
            if list(spec.changes) == ["training"] and list(spec.changes["training"]) == ["learning_rate"]
        )
    )


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


class Option(NamedTuple):
    """A way to learn the response of Δ-STN, with the runs that train at the values that it found."""

    dataset: str
    changes: dict[str, Any]  # of Δ-STN's settings
    spec: RunSpec
    found: str  # `fixed` at the values that it found; empty if that is not run


def responses(specs: Specs) -> list[Option]:
    """Response methods that differ from Δ-STN in a choice about the response, and in no number; three or more."""
    groups: dict[str, list[Option]] = defaultdict(list)
    at_values = {(spec.dataset, spec.values_of): spec.method for spec in specs if spec.values_of}
    for spec in specs:
        changes = _response(spec, specs)
        if changes is not None and "start" not in spec.changes:
            found = at_values.get((spec.dataset, spec.method), "")
            groups[spec.dataset + _conditions(spec)].append(Option(spec.dataset, changes, spec, found))
    return [option for own in groups.values() if len(own) >= FEWEST_OPTIONS for option in own]


def untuned_beside(specs: Specs, spec: RunSpec) -> str:
    """`fixed` at the start values, with all else as in `spec`; empty if that is not run."""
    alike = (each for each in specs if each.dataset == spec.dataset and _is_untuned(each))
    return next((each.method for each in alike if _conditions(each) == _conditions(spec)), "")


def _response(spec: RunSpec, specs: Specs) -> dict[str, Any] | None:
    """What a run changes of Δ-STN's settings, if these are choices about the response alone."""
    reference = next((each for each in specs if each.method == PAPERS), None)
    if reference is None or METHODS[spec.algorithm].kind != "schedule":
        return None
    plain = {"cutting_planes": False, "mixed_level": False, **asdict(reference.settings)}
    changes = {name: value for name, value in asdict(spec.settings).items() if plain.get(name, value) != value}
    other = changes.get("response") in ("stn", "stn_joint") or "mixed_level" in changes
    every = [*changes.values(), *spec.changes.get("settings", {}).values()]
    return None if other or any(isinstance(value, float) for value in every) else changes


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
