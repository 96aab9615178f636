"""The report: one page that answers, shows what the answer rests on, and leads from each number to its runs."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from cpmlho.study.archive import ARCHIVE
from cpmlho.study.made import intact
from cpmlho.study.protocol import Protocol
from cpmlho.study.report.answer import MIXED, answer, beside, details, strip
from cpmlho.study.report.cautions import cautions
from cpmlho.study.report.equality import Change, changes_after, known_changes
from cpmlho.study.report.figures import FIGURES, caption, made_by
from cpmlho.study.report.frame import LOSS, MISSING, Study, by_method, finished, incomplete
from cpmlho.study.report.render import number
from cpmlho.study.report.stats import summarise
from cpmlho.study.report.style import label_of, quantity_name
from cpmlho.study.report.tables import TABLES, load
from cpmlho.study.results import RESULT, run_dir
from cpmlho.study.spec import RunKey

CLASSES = {  # how the words of a verdict look
    **dict.fromkeys(("reproduced", "holds"), "good"),
    **dict.fromkeys(("not reproduced", "fails"), "bad"),
    **dict.fromkeys(("inconclusive", "undecided", MIXED), "open"),
}


def source(results_dir: str, name: str) -> str:
    """A figure's SVG as a data URI, so that the page is one file.

    Raises:
        ResultError: the figure is missing, or not as the others were written.
    """
    folder = Path(results_dir) / "figures"
    intact(folder, [f"{name}.svg"], "figures")
    return "data:image/svg+xml;base64," + base64.b64encode((folder / f"{name}.svg").read_bytes()).decode()


def starts(protocol: Protocol) -> str:
    """The start values in words, those that datasets share once."""
    ranges = [
        (name, each.start) for dataset in protocol.datasets.values() for name, each in dataset.hyperparameters.items()
    ]
    return ", ".join(f"{quantity_name(name).lower()} {start:g}" for name, start in dict.fromkeys(ranges))


class Group(NamedTuple):
    """The runs of one method on one dataset."""

    anchor: str
    title: str
    loss: str
    missing: str
    runs: list[dict[str, Any]]


def groups(protocol: Protocol, runs: pd.DataFrame) -> Iterator[Group]:
    """All runs, with the way to their files."""
    for dataset, method, group in by_method(runs):
        ours = summarise(finished(group)[LOSS])
        rows = []
        for record in group[group["status"] != MISSING].to_dict("records"):
            row = {str(name): value for name, value in record.items()}
            folder = run_dir("", RunKey(dataset, method, row["seed"]))
            rows.append({**row, "folder": folder.as_posix(), "file": (folder / RESULT).as_posix()})
        title = f"{protocol.datasets[dataset].folder}: {label_of(method)}"
        yield Group(f"{dataset}/{method}", title, number(ours.mean), incomplete(group), rows)


def records(protocol: Protocol, runs: pd.DataFrame) -> dict[str, str]:
    """Each run's result.json by its folder, where the files themselves lie in an archive; else nothing."""
    root = Path(protocol.results_dir)
    if not (root / ARCHIVE).exists():
        return {}
    made = runs[runs["status"] != MISSING][["dataset", "method", "seed"]]
    folders = [run_dir("", RunKey(*row)) for row in made.itertuples(index=False)]
    return {folder.as_posix(): (root / folder / RESULT).read_text(encoding="utf-8") for folder in folders}


def changes(runs: pd.DataFrame) -> list[Change]:
    """The changes of the code since the runs were made that left their numbers as they were."""
    made = finished(runs[~runs["outdated"]])[["algorithm", "code", "dataset"]].drop_duplicates()
    passed = [change for _, row in made.iterrows() for change in changes_after(*map(str, row))]
    return [change for change in known_changes() if change in passed]


def readings(compared: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What the paper leaves open, how it is read here, and what another reading was measured to change."""
    with (files("cpmlho.study.report") / "readings.csv").open(encoding="utf-8") as file:
        listed = pd.read_csv(file, dtype=str, keep_default_na=False)
    for record in listed.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        names = row["variants"].split()
        yield {**row, "effects": compared[compared["variant"].isin(names)].to_dict("records")}


def page(study: Study) -> str:
    """The whole page, from the tables and the figures.

    Raises:
        ResultError: a figure is missing.
    """
    protocol, runs = study.protocol, study.runs
    grids = {name: load(name).view(study, study.table(name)) for name in TABLES}
    environment = Environment(
        loader=PackageLoader("cpmlho.study", "report"),
        autoescape=select_autoescape(("j2",)),
        undefined=StrictUndefined,
    )
    text = environment.get_template("report.html.j2").render(
        protocol=protocol,
        answer=list(answer(study)),
        details=list(details(study)),
        strip=list(strip(study)),
        beside=beside(study),
        grids=grids,
        figures={
            name: (FIGURES[name], caption(name), source(protocol.results_dir, name)) for name in made_by(protocol)
        },
        readings=list(readings(study.table("variants"))),
        groups=list(groups(protocol, runs)),
        records=records(protocol, runs),
        archive=ARCHIVE,
        cautions=cautions(runs),
        changes=changes(runs),
        finished=len(study.finished),
        asked=len(runs),
        diverged=int((runs["status"] == "diverged").sum()),
        starts=starts(protocol),
        anchors=set(runs["dataset"] + "/" + runs["method"]),
        plain=str,
        verdict_classes=CLASSES,
    )
    return text + "\n"
