"""The report: one page that answers, shows what the answer rests on, and leads from each number to its runs."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from cpmlho.study.protocol import Protocol, RunKey
from cpmlho.study.report.aggregate import MISSING, by_method, finished, flags, incomplete, paired, read_runs, summarise
from cpmlho.study.report.equality import Change, changes_since, known_changes
from cpmlho.study.report.evidence import evidence
from cpmlho.study.report.paper import paper_effect
from cpmlho.study.report.style import QUANTITIES, label_of
from cpmlho.study.report.tables import TABLES, differences, grid_of
from cpmlho.study.results import RESULT, run_dir, write_text

NAME = "report.html"
LOSS = "final_val_loss"
CLASSES = {  # how the words of a verdict look
    **dict.fromkeys(("reproduced", "holds"), "good"),
    **dict.fromkeys(("not reproduced", "fails"), "bad"),
    **dict.fromkeys(("inconclusive", "undecided"), "open"),
}


class Picture(NamedTuple):
    """A figure in the page."""

    number: int
    title: str
    alt: str

    def source(self, results_dir: str) -> str:
        """The SVG as a data URI, so that the page is one file."""
        path = Path(results_dir) / "figures" / f"figure{self.number}.svg"
        return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


PICTURES = (
    Picture(
        1,
        "The paper's Figure 1: dropout rates of MNIST against hyperparameter updates",
        "Three panels, one for each dropout rate of the MNIST network, with the rate against hyperparameter updates for"
        " Δ-STN and CPMLHO: mean over seeds, its interval, and each seed faint.",
    ),
    Picture(
        2,
        "The paper's Figure 2: dropout0 of CPMLHO from other starts",
        "dropout0 of CPMLHO on MNIST against hyperparameter updates, from starts of 0.1, 0.2, 0.5 and 0.8, with the"
        " paper's end of about 0.05 as a dotted line.",
    ),
    Picture(
        3,
        "Anytime: best validation loss so far against the work spent",
        "For each dataset, best validation loss so far against training seconds and against batch gradients, of every"
        " method: median over seeds and the band from the lowest to the highest.",
    ),
    Picture(
        4,
        "Longer budgets: validation loss by epoch",
        "Validation loss of Δ-STN and CPMLHO by epoch in runs longer than the protocol's, median and band over seeds.",
    ),
)


def answer(protocol: Protocol, runs: pd.DataFrame, verdicts: pd.DataFrame) -> Iterator[str]:
    """The answer in three sentences."""
    counts = verdicts["verdict"].value_counts()
    parts = [f"{counts.get(name, 0)} {name}" for name in ("reproduced", "not reproduced", "inconclusive")]
    yield f"Of the paper's {len(verdicts)} claims, on the runs below: {', '.join(parts)}."
    for others, text in (
        (["delta_stn"], "CPMLHO's final validation loss, of which less is better, minus "),
        (["fixed", "bayesian_optimization", "random_search"], "The same minus "),
    ):
        pieces = {other: [*_differences(protocol, runs, other)] for other in others}
        found = [f"that of {label_of(other)}: {', '.join(each)}" for other, each in pieces.items() if each]
        yield text + ("; ".join(found) or f"that of {' or '.join(map(label_of, others))}: no two seeds of both") + "."


def _differences(protocol: Protocol, runs: pd.DataFrame, other: str) -> Iterator[str]:
    """CPMLHO's final validation loss minus another method's on each dataset, in words."""
    for dataset in protocol.run.datasets:
        found = paired(runs[runs["dataset"] == dataset], "cpmlho", other, LOSS)
        if found.n_seeds < 2:
            continue
        effect = paper_effect(dataset, "cpmlho", other, "val_loss")
        inside = effect is not None and found.ci_low <= effect <= found.ci_high
        paper = "" if effect is None else f"; the paper's {effect:+.3f} lies {'inside' if inside else 'outside'}"
        bounds = f"95\N{NO-BREAK SPACE}% interval {found.ci_low:+.4f} to {found.ci_high:+.4f}"
        yield f"{protocol.datasets[dataset].folder} {found.mean:+.4f} ({bounds}, {found.n_seeds} seeds{paper})"


def starts(protocol: Protocol) -> str:
    """The start values in words, those that datasets share once."""
    ranges = [
        (name, each.start) for dataset in protocol.datasets.values() for name, each in dataset.hyperparameters.items()
    ]
    return ", ".join(f"{QUANTITIES[name].lower()} {start:g}" for name, start in dict.fromkeys(ranges))


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
        loss = f"{ours.mean:.4f}" if rows else "–"
        yield Group(f"{dataset}/{method}", title, loss, incomplete(group), rows)


def changes(runs: pd.DataFrame) -> list[Change]:
    """The changes of the code since the runs were made that left their numbers as they were."""
    made = finished(runs)[["algorithm", "code"]].drop_duplicates()
    passed = [change for row in made.itertuples() for change in changes_since(str(row.algorithm), str(row.code)) or []]
    return [change for change in known_changes() if change in passed]


def readings(compared: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What the paper leaves open, how it is read here, and what another reading was measured to change."""
    with (files("cpmlho.study.report") / "readings.csv").open(encoding="utf-8") as file:
        listed = pd.read_csv(file, dtype=str, keep_default_na=False)
    for record in listed.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        names = row["variants"].split()
        yield {**row, "effects": compared[compared["variant"].isin(names)].to_dict("records")}


def write_report(protocol: Protocol) -> None:
    """Write `report.html` under the protocol's results, from the result files and the figures.

    Raises:
        ResultError: a result file is damaged.
        OSError: a figure is missing.
    """
    runs = read_runs(protocol)
    shown = evidence(protocol, runs)
    compared = runs[runs["method"].isin(protocol.run.methods)]
    environment = Environment(
        loader=PackageLoader("cpmlho.study", "report"),
        autoescape=select_autoescape(("j2",)),
        undefined=StrictUndefined,
    )
    page = environment.get_template("report.html.j2").render(
        protocol=protocol,
        answer=list(answer(protocol, runs, shown["verdicts"].frame)),
        tables=[grid_of(protocol, runs, table)[0] for table in TABLES],
        differences=differences(protocol, compared) if "cpmlho" in protocol.run.methods else None,
        evidence={name: each.grid for name, each in shown.items()},
        pictures=[(each, each.source(protocol.results_dir)) for each in PICTURES],
        readings=list(readings(shown["variants"].frame)),
        groups=list(groups(protocol, runs)),
        cautions=flags(runs),
        changes=changes(runs),
        finished=len(finished(runs)),
        asked=len(runs),
        starts=starts(protocol),
        anchors=set(runs["dataset"] + "/" + runs["method"]),
        plain=str,
        verdict_classes=CLASSES,
    )
    write_text(Path(protocol.results_dir) / NAME, page + "\n")
