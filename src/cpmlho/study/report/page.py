"""The page: the answer, what it rests on, and the way from each number to its runs, in one file."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from cpmlho.study.archive import ARCHIVE
from cpmlho.study.made import intact
from cpmlho.study.protocol import Protocol
from cpmlho.study.report.answer import answer, curve, divergence, findings, headline
from cpmlho.study.report.cautions import cautions
from cpmlho.study.report.figures import FIGURES, caption, made_by
from cpmlho.study.report.frame import LOSS, MISSING, Study, by_method, finished, incomplete
from cpmlho.study.report.render import NOTHING, Grid, interval, number
from cpmlho.study.report.rules import PAPERS, are_judged, is_papers_setting, rules
from cpmlho.study.report.stats import summarise
from cpmlho.study.report.style import label_of, quantity_name
from cpmlho.study.report.tables import TABLES, load
from cpmlho.study.report.tables.robust import DEPENDS, JOINT, JOINT_STATEMENT, UNASKED, UNFAIR
from cpmlho.study.results import RESULT, run_dir
from cpmlho.study.spec import PLACE, RunKey

CLASSES = {  # how the words of a verdict look
    **dict.fromkeys(("reproduced", "holds", "supported"), "good"),
    **dict.fromkeys(("not reproduced", "fails", "contradicted"), "bad"),
    **dict.fromkeys(("inconclusive", "undecided"), "open"),
    DEPENDS: "choice",
    **dict.fromkeys((UNFAIR, UNASKED), "none"),
}
SHORT = {
    "reproduced": "yes",
    "not reproduced": "no",
    "inconclusive": "open",
    DEPENDS: "depends",
    UNFAIR: "not counted",
}


CURVE = "the specification curve"


class Section(NamedTuple):
    """A section of figures and tables; it is left out if the protocol has runs for none of them."""

    anchor: str
    title: str
    figures: tuple[str, ...]
    tables: tuple[str, ...]


SECTIONS = [
    Section("hypotheses", "Hypotheses", ("outcomes", "responses", "tuning_pays"), ("hypotheses",)),
    Section("tables", "The paper's tables", (), ("table1", "table2", "table3", "differences", "optimism")),
    Section("figures", "The paper's figures", ("figure1", "figure2"), ()),
    Section("ablations", "Ablations and sensitivity", (), ("variants",)),
    Section("specifications", "Other readings of the paper", ("specification_curve",), ("multiverse",)),
    Section("splits", "Random splits", (), ("splits",)),
    Section("step-size", "Step size", ("step_size",), ("matched", "step_size")),
    Section("divergence", "Divergence", (), ("divergence",)),
    Section("budgets", "Budgets", ("figure3",), ("equal_compute", "transfer")),
]


def page(study: Study) -> str:
    """The whole page, from the tables and the figures.

    Raises:
        ResultError: a figure is missing.
    """
    protocol, runs, judged = study.protocol, study.runs, are_judged(study.protocol)
    pictures, grids = dict(_pictures(protocol)), _grids(study)
    first = "outcomes" if protocol.hypotheses else "specification_curve" if _kind(protocol) == CURVE else "forest"
    placed = {name for section in SECTIONS for name in section.figures}
    further = tuple(name for name in pictures if name not in {first, *placed})
    sections = [*SECTIONS, Section("further", "Further figures", further, ())]
    cases = list(dict.fromkeys(_case(row) for row in _verdicts(study))) if judged else []
    made = study.ended
    environment = Environment(
        loader=PackageLoader("cpmlho.study", "report"),
        autoescape=select_autoescape(("j2",)),
        undefined=StrictUndefined,
    )
    text = environment.get_template("report.html.j2").render(
        protocol=protocol,
        name=Path(protocol.results_dir).name,
        kind=_kind(protocol),
        headline=headline(study),
        answer=list(answer(study)),
        findings=list(findings(study)),
        claims=list(_claims(study)) if judged else [],
        cases=cases,
        heads=_heads(cases),
        first=first,
        pictures=pictures,
        grids=grids,
        sections=[
            section
            for section in sections
            if any(name in grids for name in section.tables)
            or any(name in pictures and name != first for name in section.figures)
        ],
        curve=curve(study),
        readings=list(_readings(study.table("variants"))),
        groups=list(_groups(protocol, runs)),
        records=_records(protocol, made),
        archive=ARCHIVE,
        cautions=cautions(runs),
        commits=list(made["git_commit"].str[:10].value_counts(sort=False).items()),
        finished=len(study.finished),
        asked=len(runs),
        diverged=int((runs["status"] == "diverged").sum()),
        starts=_starts(protocol),
        anchors=set(made["dataset"] + "/" + made["method"]),
        plain=str,
        classes=CLASSES,
        short=SHORT,
    )
    return text + "\n"


def _kind(protocol: Protocol) -> str:
    """Which question a protocol answers."""
    if not is_papers_setting(protocol):
        return "where tuning matters"
    return "the replication" if are_judged(protocol) else CURVE


class Shown(NamedTuple):
    """A figure: its words, and the SVG as a data URI, so that the page is one file."""

    title: str
    alt: str
    caption: str
    source: str


def _pictures(protocol: Protocol) -> Iterator[tuple[str, Shown]]:
    """The figures that show something.

    Raises:
        ResultError: a figure is missing, or not as the others were written.
    """
    folder = Path(protocol.results_dir) / "figures"
    for name in made_by(protocol):
        intact(folder, [f"{name}.svg", f"{name}.csv"], "figures")
        if (folder / f"{name}.csv").read_text(encoding="utf-8").count("\n") > 1:
            source = base64.b64encode((folder / f"{name}.svg").read_bytes()).decode()
            about = FIGURES[name]
            yield name, Shown(about.title, about.alt, caption(name), f"data:image/svg+xml;base64,{source}")


def _grids(study: Study) -> dict[str, list[Grid]]:
    """The tables that show something."""
    grids = {}
    for name in TABLES:
        frame = divergence(study) if name == "divergence" else study.table(name)
        found = [grid for grid in load(name).view(study, frame) if grid.rows and NOTHING not in grid.caption]
        if found:
            grids[name] = found
    return grids


def _starts(protocol: Protocol) -> str:
    """The start values in words, those that datasets share once."""
    ranges = [
        (name, each.start) for dataset in protocol.datasets.values() for name, each in dataset.hyperparameters.items()
    ]
    return ", ".join(f"{quantity_name(name).lower()} {start:g}" for name, start in dict.fromkeys(ranges))


class Case(NamedTuple):
    """A column of the matrix of verdicts."""

    reading: str
    comparator: str
    split: str


def _heads(cases: list[Case]) -> list[tuple[str, int]]:
    """The heads of the matrix, each with the number of its columns."""
    networks = {reading.name: label_of(reading.own) for reading in rules().readings}
    return [
        (f"CPMLHO on {networks[reading]}, against {comparator}", len(list(same)))
        for (reading, comparator), same in groupby(cases, lambda case: case[:2])
    ]


class Claim(NamedTuple):
    """A row of the matrix: a claim with its verdicts by case."""

    claim: str
    place: str
    statement: str
    rule: str
    verdicts: dict[Case, dict[str, Any]]


def _verdicts(study: Study) -> list[dict[str, Any]]:
    registered = study.table("verdicts").rename(columns={"decisive": "deciding"})
    columns = ["claim", "reading", "comparator", "split"]
    both = study.table("robust").merge(registered[[*columns, "deciding", "exploratory"]], how="left", on=columns)
    return [{str(name): cell for name, cell in row.items()} for row in both.fillna("").to_dict("records")]


def _case(row: Mapping[str, Any]) -> Case:
    """The column of a verdict; a claim that compares with no method stands beside those about Δ-STN."""
    return Case(row["reading"], label_of(row["comparator"] or PAPERS), row["split"])


def _claims(study: Study) -> Iterator[Claim]:
    rows = _verdicts(study)
    stated = {claim.id: (claim.place, claim.quote, claim.rule) for claim in rules().claims}
    stated[JOINT] = ("Table 1", JOINT_STATEMENT, "C1 and C2 are both reproduced, on the paper's split.")
    for claim, words in stated.items():
        own = {_case(row): row for row in rows if row["claim"] == claim}
        if own:
            yield Claim(claim, *words, own)


class Group(NamedTuple):
    """The runs of one method on one dataset."""

    anchor: str
    title: str
    loss: str
    missing: str
    runs: list[dict[str, Any]]


def _groups(protocol: Protocol, runs: pd.DataFrame) -> Iterator[Group]:
    """The runs by dataset and method, where there is one, with the way to their files."""
    for dataset, method, group in by_method(runs):
        rows = []
        for record in group[group["status"] != MISSING].to_dict("records"):
            folder = run_dir("", RunKey(dataset, method, record["seed"]))
            rows.append({**{str(name): cell for name, cell in record.items()}, "folder": folder.as_posix()})
        title = f"{protocol.datasets[dataset].folder}: {label_of(method)}"
        loss = number(summarise(finished(group)[LOSS]).mean)
        yield Group(f"{dataset}/{method}", title, loss, incomplete(group), rows)


def _records(protocol: Protocol, made: pd.DataFrame) -> str:
    """Each run's result.json by its folder, compressed, if the files themselves are in an archive; else nothing."""
    root = Path(protocol.results_dir)
    if not (root / ARCHIVE).exists():
        return ""
    folders = [run_dir("", RunKey(*row)) for row in made[["dataset", "method", "seed"]].itertuples(index=False)]
    records = {folder.as_posix(): _read(root / folder / RESULT) for folder in folders}
    return base64.b64encode(zlib.compress(json.dumps(records).encode(), 9)).decode()


def _read(path: Path) -> dict[str, Any]:
    """A result without the paths of the machine that made it; JavaScript's JSON has no NaN."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=str)
    record["spec"] = {name: value for name, value in record["spec"].items() if name not in PLACE}
    return record


def _readings(compared: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What the paper leaves open, how it is read here, and what another reading was measured to change."""
    with (files("cpmlho.study.report") / "readings.csv").open(encoding="utf-8") as file:
        listed = pd.read_csv(file, dtype=str, keep_default_na=False)
    for record in listed.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        names = row["variants"].split()
        effects = compared[compared["variant"].isin(names)].to_dict("records")
        yield {**row, "effects": [{**each, "words": _effect(each)} for each in effects]}


def _effect(row: Mapping[Any, Any]) -> str:
    if not row["n_seeds"]:
        return "diverged"
    ends = f" {interval(row['ci_low'], row['ci_high'])}" if row["n_seeds"] > 1 else ""
    return f"{number(row['difference'], sign='+')}{ends}, n = {row['n_seeds']}"
