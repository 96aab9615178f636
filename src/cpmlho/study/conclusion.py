"""The last lines of a workflow: where to look, and how its runs compare with the published ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from cpmlho.study.compare import TOLERANCE, agreement
from cpmlho.study.hints import command as hint
from cpmlho.study.protocol import Protocol, load
from cpmlho.study.results import METRICS, ResultError, read_result
from cpmlho.study.spec import RunKey
from cpmlho.study.strict import ConfigError
from cpmlho.study.tracking.place import command
from cpmlho.study.workflow import Plan, decisive

PUBLISHED = Path("workflow", "published.yaml")


def in_mlflow(plan: Plan) -> Iterator[str]:
    """Say how many runs MLflow lacks, and how to add them, if it lacks any."""
    from cpmlho.study.tracking import untracked

    if lost := untracked(plan.protocol, Path.cwd()):
        yield f"{lost}; add them: {hint('track', '--config', plan.file)}"


def places(plan: Plan, rules: Collection[str], root: Path) -> Iterator[str]:
    """Say where to look for what these rules make, with commands that work in a shell without an environment."""
    results = Path(plan.protocol.results_dir)
    if "report" in rules:
        yield f"Report:  {results / 'report.html'}"
    if "tables" in rules:
        yield f"Tables:  {results / 'tables'}"
    if "figures" in rules:
        yield f"Figures: {results / 'figures'}"
    if "run" in rules or "summary" in rules:
        yield f"MLflow:  {_page(plan.store, root)}"


def _page(store: str | None, root: Path) -> str:
    if store and store.startswith(("http://", "https://")):
        return store
    if store is None and Path.cwd() == root.resolve():
        return "make ui"
    return f"{command('mlflow')} ui" + (f" --backend-store-uri '{store}'" if store else "")


def beside_the_published(plan: Plan, root: Path) -> Iterator[str]:
    """Say how far the runs differ from the published ones with the same settings, and the verdicts of both."""
    try:
        published = load([root / "config.yaml", root / PUBLISHED])
        published = published.model_copy(update={"results_dir": str(root / published.results_dir)})
        if Path(plan.protocol.results_dir).resolve() == Path(published.results_dir).resolve():
            return
        verdicts, theirs = _verdicts(published), _finals(published)
    except ConfigError as error:
        yield f"No comparison with the published runs: {error}"
        return
    except (ResultError, ValueError, KeyError):  # missing, damaged, or of another version
        folder = Path(published.results_dir, "tables")
        what = f"damaged or of another version; restore it: git checkout {folder}"
        yield f"No comparison with the published runs: {folder} is {what}"
        return
    found = agreement(_same_settings(plan, published), theirs)
    if found is None:
        yield "None of these runs has the settings of a published one, so there is nothing to compare."
    else:
        word = "they agree" if found.largest <= TOLERANCE else f"more than {TOLERANCE:g}, they do not agree"
        yield (
            f"{found.compared} of your {len(plan.keys)} runs have the settings of a published one; the largest"
            f" difference is {found.largest:.2g} of the seeds' standard deviation ({found.where}): {word}."
        )
    yield f"Published runs: {verdicts}"
    try:
        yield f"Your runs:      {_verdicts(plan.protocol)}"
    except ResultError as error:
        yield f"Your runs:      no verdicts: {error}"


def _same_settings(plan: Plan, published: Protocol) -> dict[RunKey, dict[str, float]]:
    """Return the final metrics of the runs that the published protocol has with the same settings."""
    where = {"device", "precision"}  # they change the last digits alone
    found = {}
    for key in plan.keys:
        try:
            if decisive(published.resolve(key), where) == decisive(plan.spec(key), where):
                found[key] = asdict(read_result(Path(plan.result(key))).final)
        except (ConfigError, ResultError, ValueError):  # not in the published protocol
            continue
    return found


def _finals(protocol: Protocol) -> dict[RunKey, Mapping[str, float]]:
    from cpmlho.study.report.write import written

    runs = written(protocol).finished
    return {
        RunKey(str(row["dataset"]), str(row["method"]), int(row["seed"])): {
            metric: float(row[f"final_{metric}"]) for metric in METRICS
        }
        for _, row in runs[~runs["stale"]].iterrows()
    }


def _verdicts(protocol: Protocol) -> str:
    """Return the page's sentence on the verdicts, which names the cases, or its headline if it judges none."""
    from cpmlho.study.report.answer import findings, headline
    from cpmlho.study.report.write import written

    study = written(protocol)
    return dict(findings(study)).get("Verdicts") or headline(study)
