"""The answer in plain words, with every number read from the tables; the page and the README print it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from math import ceil, isnan
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cpmlho.study.report.figures import load as load_figure
from cpmlho.study.report.frame import LOSS, Study, read_csv
from cpmlho.study.report.paper import paper_effect
from cpmlho.study.report.render import interval, number
from cpmlho.study.report.rules import PAPERS, are_judged, is_papers_setting, rules
from cpmlho.study.report.selection import sizes, specs
from cpmlho.study.report.stats import FEWEST_SEEDS, paired
from cpmlho.study.report.style import label_of
from cpmlho.study.report.tables.divergence import joined
from cpmlho.study.report.tables.hypotheses import MAIN, NOT_TESTED, TEST
from cpmlho.study.report.tables.multiverse import sides
from cpmlho.study.report.tables.robust import DEPENDS, JOINT, UNASKED, UNFAIR
from cpmlho.study.results import ResultError

CENTRED, UNCENTRED, STN = "cpmlho", "cpmlho_uncentred", "stn"
STILL_FALLING = 0.9  # share of the runs that have their best loss at the last evaluation
PLANES_ALONE = "cpmlho_cuts_only"
ON = {CENTRED: "CPMLHO on Δ-STN", UNCENTRED: "CPMLHO on STN"}  # the readings, without a term of our own
TOO_FEW = f"Too few seeds to judge CPMLHO: a verdict needs {FEWEST_SEEDS} or more."
PLURAL = {DEPENDS: "depend on a choice"}
FRACTIONS = {3: "a third", 4: "a quarter", 5: "a fifth", 6: "a sixth", 8: "an eighth", 10: "a tenth", 12: "a twelfth"}


def headline(study: Study) -> str:
    """The answer in one sentence."""
    if not is_papers_setting(study.protocol):
        return _tested(study)
    if not are_judged(study.protocol):
        return _curve(study.table("multiverse"))
    rows = differences(study, CENTRED, PAPERS)
    if rows.empty or rows["difference_n_seeds"].min() < FEWEST_SEEDS:
        return TOO_FEW
    if (rows["difference_ci_low"] > rows["paper_difference"] / 2).all():
        return "In the paper's own setting we find no gain from CPMLHO's two additions."
    if (rows["difference_ci_high"] < 0).all():
        return "In the paper's own setting we find a gain from CPMLHO's two additions."
    return "In the paper's own setting it is undecided whether CPMLHO's two additions help."


def _curve(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "This protocol runs no reading of CPMLHO, so no claim of the paper is judged."
    first, below, above = (int(each.sum()) for each in sides(rows))
    return (
        f"Of {len(rows)} ways to fill what the paper leaves open, {first} end below Δ-STN, but {below} below the same"
        f" network without CPMLHO's two additions; {above} end above it."
    )


def _tested(study: Study) -> str:
    rows = study.table("hypotheses")
    if rows.empty:
        return "These runs are not in the paper's setting, and their protocol declares no hypothesis."
    supported = _claims(rows[rows["family"] == MAIN], "supported")
    if supported:
        return f"Where tuning matters ({_examples(study)}), {_listed(supported)}."
    tested = (rows["verdict"] != NOT_TESTED).any()
    return f"Where tuning matters, no hypothesis {'is supported' if tested else 'has been tested yet'}."


def _examples(study: Study) -> str:
    data, datasets = study.protocol.data, study.protocol.datasets
    parts = []
    for name in study.protocol.run.datasets:
        own, of = datasets[name].examples, study.folder(name)
        parts.append(f"{own * (1 - data.valid_fraction):,.0f} training examples of {of}" if own else of)
    return _and(parts)


def _claims(rows: pd.DataFrame, verdict: str) -> list[str]:
    return [str(claim) for claim in rows.loc[rows["verdict"] == verdict, "claim"]]


def answer(study: Study) -> Iterator[str]:
    """The sentences below the headline; only those that the protocol's runs support."""
    if study.protocol.hypotheses:
        yield from filter(None, [means(study)])
    elif is_papers_setting(study.protocol):
        yield from filter(None, (centred(study), uncentred(study), _joint(study), _setting(study)))


def means(study: Study) -> str:
    """The mean test loss without tuning, of Δ-STN, of CPMLHO, of what the headline names, and of the best method.

    On a dataset on which only variants ran, it is that of each variant in a hypothesis.
    """
    rows, said = study.table("hypotheses"), []
    named = {"fixed", *rows["method"], *rows["other"]}
    found = rows[(rows["family"] == MAIN) & (rows["verdict"] == "supported")]
    first = {"fixed", PAPERS, CENTRED, *found["method"], *found["other"]}
    for dataset, runs in study.finished.groupby("dataset", sort=False):
        losses = runs[runs["method"].isin(named)].groupby("method")[TEST].agg(["mean", "size"])
        mean = losses.loc[losses["size"] >= FEWEST_SEEDS, "mean"].sort_values(ascending=False)
        shown = first if first & {*mean.index} else {*mean.index}
        names = [name for name in mean.index if name in shown or name == mean.index[-1]]
        if names:
            each = (f"{study.words(str(name))} {number(mean[name], 3)}" for name in names)
            said.append(f"on {study.folder(dataset)}: {'; '.join(each)}")
    return f"Mean test loss {', and '.join(said)}." if said else ""


def _by_verdict(study: Study) -> Iterator[tuple[str, str]]:
    """The hypotheses that the headline does not name, by verdict; their numbers are in the table."""
    rows = study.table("hypotheses")
    if rows.empty:
        return
    for verdict in ("supported", "contradicted", "undecided", NOT_TESTED):
        claims = _claims(rows if verdict != "supported" else rows[rows["family"] != MAIN], verdict)
        if claims:
            yield verdict.capitalize(), f"{'; '.join(claims)}."


def findings(study: Study) -> Iterator[tuple[str, str]]:
    """What else a reader should know, each with a keyword; only what the protocol's runs support."""
    yield from _by_verdict(study)
    for keyword, say in (
        ("Verdicts", _verdicts),
        ("Power", _power),
        ("Step size", _step_size),
        ("Divergence", _divergence),
        ("Random splits", _splits),
        ("Start values", _starts),
        ("Other choices", _specifications),
        ("Searches", _searches),
        ("When it pays", _by_size),
        ("Without planes", _without_planes),
    ):
        if text := say(study):
            yield keyword, text


def differences(study: Study, method: str, other: str) -> pd.DataFrame:
    """The rows of the table of differences for two methods, one per dataset."""
    rows = study.table("differences")
    return rows[(rows["method"] == method) & (rows["other"] == other)] if len(rows) else rows


def value(row: Any, prefix: str = "difference") -> str:
    """A mean with its interval."""
    low, high = getattr(row, f"{prefix}_ci_low"), getattr(row, f"{prefix}_ci_high")
    return f"{number(getattr(row, f'{prefix}_mean'), sign='+')} {interval(low, high)}"


def _each(study: Study, rows: pd.DataFrame, prefix: str = "difference") -> str:
    return _and(f"{value(row, prefix)} on {study.folder(row.dataset)}" for row in rows.itertuples())


def centred(study: Study) -> str:
    """What CPMLHO's additions change on Δ-STN, as a sentence; empty if there are too few seeds."""
    rows = differences(study, CENTRED, PAPERS)
    if not _decided(rows):
        return ""
    halves, folders = rows["paper_difference"].abs() / 2, _and(map(study.folder, rows["dataset"]))
    level = (rows["difference_ci_low"] > -halves) & (rows["difference_ci_high"] < halves)
    said = "leave the final validation loss unchanged" if level.all() else "change the final validation loss"
    text = f"Added to Δ-STN, the paper's baseline, the additions {said} on {folders}"
    ruled_out = (rows["difference_ci_low"] > -halves).all()
    return f"{text}; gains half as large as the paper's are ruled out." if ruled_out else f"{text}."


def _decided(rows: pd.DataFrame) -> bool:
    return len(rows) > 0 and rows["difference_n_seeds"].min() >= FEWEST_SEEDS


def _and(parts: Iterable[str]) -> str:
    return " and ".join(parts)


def _listed(parts: list[str]) -> str:
    return _and(filter(None, (", ".join(parts[:-1]), parts[-1])))


def uncentred(study: Study) -> str:
    """What they change on STN, as a sentence; empty if there are too few seeds, or CPMLHO does not lead."""
    above, own = differences(study, UNCENTRED, PAPERS), differences(study, UNCENTRED, STN)
    if not (_decided(above) and _decided(own)) or not (above["difference_ci_high"] < 0).all():
        return ""
    text = "Added to the older STN, as the equations literally read, CPMLHO ends far below Δ-STN"
    if (own["difference_ci_high"] < 0).any():
        return f"{text}, and on at least one dataset below STN."
    matched = _of(study.table("matched"), UNCENTRED)
    if matched.empty or (matched["difference_ci_high"] < 0).any():
        return f"{text}, but so does STN without the additions."
    return (
        f"{text}, but so does STN without the additions: its steps are larger, and at equal training loss the lead is"
        " gone."
    )


def _name(method: str) -> str:
    return ON.get(method, label_of(method))


def _of(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    return rows[rows["method"] == method] if len(rows) else rows


def _joint(study: Study) -> str:
    rows = study.table("robust")
    joint = rows[rows["claim"] == JOINT]
    if joint.empty or set(joint["robust"]) != {"not reproduced"}:
        return ""
    return "No reading gives both the paper's losses and its ranking."


def _setting(study: Study) -> str:
    rows, runs = differences(study, CENTRED, "fixed"), study.finished
    own = runs[(runs["dataset"] == "mnist") & (runs["method"] == PAPERS)]
    mnist = rows[rows["dataset"] == "mnist"] if len(rows) else rows
    if not _decided(mnist) or not (own[LOSS] == own["best_val_loss"]).mean() >= STILL_FALLING:
        return ""
    most = max(abs(mnist["difference_ci_low"].iloc[0]), abs(mnist["difference_ci_high"].iloc[0]))
    return (
        f"The setting is insensitive: after {int(own['epochs'].iloc[0])} epochs the network still underfits, and on"
        f" MNIST CPMLHO on Δ-STN ends within {ceil(1000 * most) / 1000:g} of no tuning."
    )


def _verdicts(study: Study) -> str:
    if not are_judged(study.protocol):
        return ""
    rows = study.table("robust")
    claims, joint = rows[rows["registered"] != UNASKED], rows[rows["claim"] == JOINT]
    registered, robust = claims["registered"].value_counts(), claims["robust"].value_counts()

    def said(counts: pd.Series[int], names: list[str]) -> str:
        return ", ".join(f"{counts.get(name, 0)} {PLURAL.get(name, name)}" for name in names)

    held = ["reproduced", "not reproduced", "inconclusive"]
    text = (
        f"{len(rules().claims)} claims, tested in {len(claims)} cases (reading, baseline, split). Registered rules:"
        f" {said(registered, held)}. Stricter rules, made after the results:"
        f" {said(robust, [held[0], DEPENDS, *held[1:], UNFAIR])}."
    )
    if len(joint):
        text += f" The paper's values and ranking together: {_and(dict.fromkeys(joint['robust']))}."
    return text


def _power(study: Study) -> str:
    rows = differences(study, CENTRED, PAPERS)
    if not _decided(rows) or rows["paper_difference"].isna().any():
        return ""
    shares = rows["detectable"] / rows["paper_difference"].abs()
    found = (
        f"{number(least, 5)} on {study.folder(name)}" for name, least in rows.set_index("dataset")["detectable"].items()
    )
    return (
        f"The loss of CPMLHO on Δ-STN minus Δ-STN's is {_each(study, rows)}. With"
        f" {int(rows['difference_n_seeds'].min())} seeds the smallest detectable difference is {_and(found)},"
        f" {_and(map(_fraction, shares))} of the paper's."
    )


def _fraction(share: float) -> str:
    return (share and FRACTIONS.get(round(1 / share))) or f"{share:.0%}"


def _step_size(study: Study) -> str:
    rows = study.table("matched")
    said = [f"{_name(name)} {_each(study, own)}" for name in (UNCENTRED, STN) if len(own := _of(rows, name))]
    if not said:
        return ""
    return (
        f"Validation loss minus Δ-STN's at equal training loss, interpolated between learning rates: {'; '.join(said)}."
    )


def divergence(study: Study) -> pd.DataFrame:
    """Divergence by processor, with runs of the same settings in the protocol that `multiverse` names."""
    other = beside(study, "divergence")
    own = study.table("divergence")
    return own if other is None else joined(own, other)


def _divergence(study: Study) -> str:
    rows = divergence(study)
    methods = [method for method in (UNCENTRED, STN) if len(rows) and method in set(rows["method"])]
    said = []
    for dataset in rows["dataset"].unique():
        own = rows[(rows["dataset"] == dataset) & rows["method"].isin(methods)]
        if own["diverged"].sum():
            each = (
                f"{_name(str(method))} in "
                + _and(f"{row.diverged} of {row.runs} runs on {row.processor}" for row in part.itertuples())
                for method, part in own.groupby("method", sort=False)
            )
            said.append(f"On {study.folder(dataset)} some seeds diverge: {', '.join(each)}.")
    return " ".join(said)


def _specifications(study: Study) -> str:
    other = beside(study, "multiverse")
    rows = study.table("multiverse") if other is None else other
    said = []
    for dataset, own in rows.groupby("dataset", sort=False):
        if len(own) > len(rules().readings):
            first, below, above = (int(each.sum()) for each in sides(own))
            said.append(
                f"Of {len(own)} ways to fill what the paper leaves open on {study.folder(dataset)}, {first} end below"
                f" Δ-STN, {below} below the same network without the additions, and {above} above it."
            )
    return " ".join(said)


def _starts(study: Study) -> str:
    """Final dropout0 from other starts: the estimates of C7's tests, on the logit scale."""
    tests = study.table("claims")
    tests = tests[(tests["claim"] == "C7") & (tests["side"] == "below") & (tests["n_seeds"] >= FEWEST_SEEDS)]
    tests = tests[tests["margin"] == 0]  # the bounds, not the difference between two starts
    if tests.empty:
        return ""
    losses = study.finished.groupby("method")[LOSS].mean()
    said = []
    methods = {reading.name: reading.method for reading in rules().readings}
    for reading, own in tests.groupby("reading", sort=False):
        ends = "/".join(f"{estimate:.1g}" if estimate < 0.01 else f"{estimate:.3f}" for estimate in own["estimate"])
        first, last = (number(losses[name], 3) for name in own["method"].iloc[[0, -1]])
        said.append(f"{_name(methods[str(reading)])} ends at {ends} (loss {first} to {last})")
    starts = "/".join(dict.fromkeys(tests["method"].str.rpartition("_")[2]))
    return f"From dropout0 = {starts} the paper always ends near 0.05; here {_and(said)}."


def _splits(study: Study) -> str:
    rows = study.table("splits")
    if rows.empty:
        return ""
    tuned = rows[rows["method"].isin([CENTRED, PAPERS]) & (rows["other"] == "fixed")]
    better = tuned[tuned["random_difference_ci_high"] < 0]
    said = []
    for dataset, own in better.groupby("dataset", sort=False):
        each = (f"{_name(str(row.method))} {value(row, 'random_difference')}" for row in own.itertuples())
        said.append(f"{study.folder(dataset)}, loss minus that of no tuning: {', '.join(each)}.")
    return " ".join(said)


def _searches(study: Study) -> str:
    """CPMLHO in Δ-STN's network minus the searches that begin at its start values."""
    said = []
    for dataset, runs in study.finished.groupby("dataset", sort=False):
        for base in ("random_search", "bayesian_optimization"):
            found = paired(runs, CENTRED, f"{base}_logit", LOSS)
            if found.n_seeds >= FEWEST_SEEDS:
                ends = interval(found.ci_low, found.ci_high)
                said.append(f"{number(found.mean, sign='+')} {ends} ({label_of(base)}, {study.folder(dataset)})")
    return f"CPMLHO's loss minus that of searches that begin at its start values: {', '.join(said)}." if said else ""


def _by_size(study: Study) -> str:
    """The gain over no tuning by the number of training examples, of the method with the largest."""
    if not sizes(specs(study.protocol)):
        return ""
    rows = load_figure("tuning_pays").data(study)
    if rows.empty:
        return ""
    best = rows.iloc[int(rows["mean"].argmin())]
    own = rows[(rows["dataset"] == best["dataset"]) & (rows["line"] == best["line"])].sort_values("examples")
    said = [
        f"{_count(row['examples'])} training examples"
        f" {number(row['mean'], 3, '+')} {interval(row['ci_low'], row['ci_high'], 3)}, n = {row['n_seeds']}"
        for row in own.to_dict("records")
    ]
    what = f"Test loss of {study.words(best['line'])} minus that of no tuning, on {study.folder(best['dataset'])}"
    return f"{what}: {'; '.join(said)}."


def _count(examples: float) -> str:
    return "all" if isnan(examples) else f"{examples:,.0f}"


def _without_planes(study: Study) -> str:
    """Other responses compared with the cutting planes alone, where hypotheses ask whether they end alike."""
    rows = study.table("hypotheses")
    if rows.empty:
        return ""
    rows = rows[(rows["other"] == PLANES_ALONE) & (rows["expected"] == "equal") & (rows["verdict"] != NOT_TESTED)]
    said = [
        f"{study.words(row['method'])} {number(row['difference_mean'], 3, '+')}"
        f" {interval(row['corrected_low'], row['corrected_high'], 3)}"
        for row in rows.sort_values("difference_mean").to_dict("records")
        if study.spec(row["dataset"], row["method"]).values_of is None
    ]
    text = "Test loss minus that of the cutting planes alone, with intervals after Holm's correction"
    return f"{text}: {'; '.join(said)}." if said else ""


def beside(study: Study, table: str) -> pd.DataFrame | None:
    """A table of the protocol that `multiverse` names; None where there is none, or it has not been made.

    Raises:
        ResultError: the table cannot be read.
    """
    folder = study.protocol.multiverse
    if folder is None or not (path := Path(folder) / "tables" / f"{table}.csv").is_file():
        return None
    try:
        return read_csv(path)
    except (OSError, ValueError):
        raise ResultError(f"{path}: damaged; make it again: python -m cpmlho tables with its protocol") from None


class Link(NamedTuple):
    """The specification curve of another protocol, as a link from this one's page."""

    address: str
    specifications: int


def curve(study: Study) -> Link | None:
    """The page of the specification curve that `multiverse` names; None where it has not been made."""
    rows = beside(study, "multiverse")
    if rows is None or study.protocol.multiverse is None:
        return None
    folder = os.path.relpath(study.protocol.multiverse, study.protocol.results_dir)
    return Link(Path(folder, "report.html").as_posix(), len(rows))


def paper_row(study: Study) -> list[str]:
    """The difference between CPMLHO and Δ-STN that the paper prints, for each dataset."""
    effects = (paper_effect(dataset, "cpmlho", PAPERS, "val_loss") for dataset in study.protocol.run.datasets)
    return ["–" if effect is None else number(effect, 3, "+") for effect in effects]
