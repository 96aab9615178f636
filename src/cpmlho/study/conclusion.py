"""The last lines of a workflow: where to look, and what its runs say beside the published ones."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from cpmlho.study.compare import TOLERANCE, agreement
from cpmlho.study.files import unsealed
from cpmlho.study.protocol import Protocol, load
from cpmlho.study.results import METRICS, ResultError, read_result
from cpmlho.study.spec import PLACE, RunKey, RunSpec
from cpmlho.study.strict import ConfigError
from cpmlho.study.tracking.place import command
from cpmlho.study.workflow import Plan

PUBLISHED = Path("workflow", "published.yaml")
UNREADABLE = (OSError, ValueError, KeyError, TypeError, csv.Error)  # what a table that is not as it was made may raise
WHERE_ONLY = PLACE | {"device", "precision"}  # of a specification: what moves digits alone


def places(plan: Plan, rules: Collection[str], root: Path) -> Iterator[str]:
    """Where to look for what these rules have made, with commands that work where nothing is activated."""
    results = Path(plan.protocol.results_dir)
    if "report" in rules:
        yield f"Report:  {results / 'report.html'}"
    if "tables" in rules:
        yield f"Tables:  {results / 'tables'} (table1.md to table3.md)"
    if "figures" in rules:
        yield f"Figures: {results / 'figures'} (figure1.png to figure4.png)"
    if "run" in rules or "summary" in rules:
        yield f"MLflow:  {_page(plan.store, root)}"


def _page(store: str | None, root: Path) -> str:
    """How to see the runs in MLflow, in a shell where nothing is activated."""
    if store and store.startswith(("http://", "https://")):
        return store
    if store is None and Path.cwd() == root.resolve():
        return "make ui"
    return f"{command('mlflow')} ui" + (f" --backend-store-uri '{store}'" if store else "")


def beside_the_published(plan: Plan, root: Path) -> Iterator[str]:
    """How the runs agree with the published ones of the same settings, the published verdicts, and these runs' own."""
    try:
        asked = load([root / "config.yaml", root / PUBLISHED])
    except ConfigError as error:
        yield f"Nothing is compared with the published runs: {' '.join(str(error).split())}"
        return
    results, published = Path(plan.protocol.results_dir), root / asked.results_dir
    if results.resolve() == published.resolve():
        return
    try:
        theirs, verdicts = _published(published), _verdicts(published)
    except UNREADABLE:
        what = "missing, damaged or of another version of the project; `git checkout` brings them back"
        yield f"Nothing is compared with the published runs: {published / 'tables'}: {what}"
        return
    found = agreement(_ours(plan, asked), theirs)
    if found is None:
        yield "None of these runs has the settings of a published one, so there is nothing to compare."
    else:
        word = "they agree" if found.largest <= TOLERANCE else f"more than {TOLERANCE:g}, they do not agree"
        yield (
            f"Of your {len(plan.keys)} runs {found.compared} have the settings of a published one; the largest"
            f" difference is {found.largest:.2g} of the seeds' standard deviation ({found.where}): {word}."
        )
    yield f"Published verdicts:  {verdicts}"
    try:
        yield f"Your seeds alone:    {_verdicts(results)}"
    except UNREADABLE:
        yield "Your seeds alone:    none, as there are no whole tables"


def _ours(plan: Plan, asked: Protocol) -> dict[RunKey, dict[str, float]]:
    """The final metrics of the runs whose settings the published protocol has too."""
    found = {}
    for key in plan.keys:
        try:
            if _decisive(asked.resolve(key)) == _decisive(plan.spec(key)):
                found[key] = asdict(read_result(Path(plan.result(key))).final)
        except (ConfigError, ResultError, ValueError):  # not in the published protocol
            continue
    return found


def _decisive(spec: RunSpec) -> str:
    return spec.model_dump_json(exclude=WHERE_ONLY)


def _rows(folder: Path, name: str) -> list[dict[str, str]]:
    """A table's rows.

    Raises:
        OSError: there is none.
        ValueError: it is damaged.
    """
    if unsealed(folder / "tables", [name]):
        raise ValueError(name)
    with (folder / "tables" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _published(folder: Path) -> dict[RunKey, Mapping[str, float]]:
    return {
        RunKey(row["dataset"], row["method"], int(row["seed"])): {
            metric: float(row[f"final_{metric}"]) for metric in METRICS
        }
        for row in _rows(folder, "runs.csv")
        if row["status"] == "done" and row["stale"] == "False"
    }


def _verdicts(folder: Path) -> str:
    by_verdict: dict[str, list[str]] = {}
    first = {row["claim"]: row["verdict"] for row in reversed(_rows(folder, "verdicts.csv"))}
    for claim, verdict in sorted(first.items()):  # in its first case: the centred reading, against Δ-STN
        by_verdict.setdefault(verdict, []).append(claim)
    return "; ".join(f"{verdict}: {', '.join(claims)}" for verdict, claims in by_verdict.items())
