"""The answer at the top of the page: each reading, its comparators, other splits, and the curve of another protocol."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import pandas as pd
import pytest
from test_multiverse import made
from test_reporting import load, text, write

from cpmlho.study.files import write_text
from cpmlho.study.protocol import Protocol
from cpmlho.study.report.answer import answer, beside, details, reproduced, standings, strip
from cpmlho.study.report.frame import Study
from cpmlho.study.report.write import write_figures, write_page, write_tables
from cpmlho.study.results import ResultError
from cpmlho.study.spec import RunKey

METHODS = ["cpmlho", "cpmlho_uncentred", "stn", "delta_stn", "fixed"]
SPLITS = {
    "axes": {"part": {"random": {"split": "random"}}, "of": {name: {"base": name} for name in ("cpmlho", "delta_stn")}}
}
SPECIFICATIONS = {
    "axes": {
        "on": {"cpmlho": {"base": "cpmlho"}},
        "theta": {"t2": {"settings": {"theta": 2.0}}, "t3": {"settings": {"theta": 3.0}}},
    }
}
LOSSES = {
    "cpmlho": [0.29, 0.30, 0.31],
    "cpmlho_uncentred": [0.25, 0.27, 0.26],
    "stn": [0.22, 0.23, 0.24],
    "delta_stn": [0.30, 0.31, 0.32],
    "fixed": [0.31, 0.31, 0.31],
}


def run(variants: list[str]) -> dict[str, object]:
    return {"datasets": ["mnist"], "methods": METHODS, "variants": variants, "seeds": [0, 1, 2]}


@pytest.fixture
def protocol(tmp_path: Path) -> Protocol:
    """Three seeds of each reading, of its comparators and of no tuning."""
    protocol = load(tmp_path, run=run([]), grids={"split": SPLITS})
    for method, losses in LOSSES.items():
        made(protocol, method, losses)
    return protocol


def test_the_differences_are_of_each_reading_and_both_comparators_and_no_tuning(protocol: Protocol) -> None:
    said = list(details(Study(protocol)))
    assert [sentence.partition(": ")[0] for sentence in said] == [
        "The final validation loss of CPMLHO, of which less is better, minus Δ-STN's",
        "Minus that of no tuning at all",
        "The final validation loss of CPMLHO, uncentred, of which less is better, minus Δ-STN's",
        "Minus STN's",
        "Minus that of no tuning at all",
    ]
    assert "-0.0100 on MNIST" in said[0]
    assert "where the paper prints -0.002" in said[0]
    assert "+0.0300 on MNIST" in said[3]
    made(protocol, "split_random_cpmlho", [0.2, 0.3, 0.4])
    made(protocol, "split_random_delta_stn", [0.19, 0.29, 0.39])
    assert list(details(Study(protocol)))[-2].startswith("MNIST: 0 of 1 differences are on random splits what")


def test_a_claim_has_a_case_for_each_reading_and_comparator_and_the_splits_that_it_is_run_on(
    protocol: Protocol,
) -> None:
    made(protocol, "split_random_cpmlho", [0.2, 0.3, 0.4])
    made(protocol, "split_random_delta_stn", [0.19, 0.29, 0.39])
    assert next(answer(Study(protocol))).startswith(
        f"Of the paper's 8 claims in {len(Study(protocol).table('verdicts'))} cases, "
    )
    verdicts = Study(protocol).table("verdicts")
    cases = verdicts[verdicts["claim"] == "C8"][["reading", "comparator", "split"]]
    assert {tuple(case) for case in cases.to_numpy()} == {
        ("centred", "delta_stn", "last"),
        ("centred", "delta_stn", "random"),
        ("uncentred", "delta_stn", "last"),
        ("uncentred", "stn", "last"),
    }


def test_where_a_reading_ends_is_said_by_the_interval_of_five_seeds_or_more(tmp_path: Path) -> None:
    methods = {"datasets": ["mnist", "fashionmnist"], "methods": ["cpmlho", "delta_stn", "fixed"], "variants": []}
    protocol = load(tmp_path, run=methods | {"seeds": list(range(5))})
    for method, losses in {
        "cpmlho": [0.30, 0.31, 0.32, 0.33, 0.34],
        "delta_stn": [0.31, 0.30, 0.33, 0.32, 0.35],  # on either side
        "fixed": [0.31, 0.33, 0.33, 0.35, 0.36],  # always above
    }.items():
        for seed, loss in enumerate(losses):
            write(protocol, RunKey("mnist", method, seed), loss)
            write(protocol, RunKey("fashionmnist", method, seed), 1.0 - loss)
    assert dict(standings(Study(protocol))) == {
        "centred": "not told from Δ-STN's on MNIST and FashionMNIST, below that of no tuning at all on MNIST,"
        " above that of no tuning at all on FashionMNIST"
    }


def test_fewer_seeds_than_five_say_nothing_of_where_a_reading_ends(protocol: Protocol) -> None:
    few = "of too few seeds to be told from"
    others = {"centred": ["Δ-STN's"], "uncentred": ["Δ-STN's", "STN's"]}
    assert dict(standings(Study(protocol))) == {
        reading: ", ".join(f"{few} {other} on MNIST" for other in [*names, "that of no tuning at all"])
        for reading, names in others.items()
    }


def test_a_claim_whose_cases_differ_says_how_many_are_reproduced(protocol: Protocol) -> None:
    study = Study(protocol)
    chips = {chip.claim: chip for chip in strip(study)}
    verdicts = study.table("verdicts")
    assert list(chips) == list(dict.fromkeys(verdicts["claim"]))
    assert {chip.words for chip in chips.values()} == {"inconclusive"}  # on three seeds
    first = verdicts.index[verdicts["claim"] == "C1"][0]
    verdicts.loc[first, "verdict"] = "reproduced"
    study.table = {"verdicts": verdicts}.__getitem__  # type: ignore[method-assign]
    changed = next(strip(study))
    assert (changed.words, changed.verdict) == (
        f"reproduced in 1 of {(verdicts['claim'] == 'C1').sum()} cases",
        "depends on the case",
    )


@pytest.mark.slow
def test_the_curve_of_another_protocol_is_counted_and_linked(tmp_path: Path) -> None:
    other = load(
        tmp_path / "curve", run=run([]) | {"methods": ["delta_stn", "cpmlho"]}, grids={"reading": SPECIFICATIONS}
    )
    for method in ("delta_stn", "cpmlho"):
        made(other, method, LOSSES[method], [10.0, 7.0])
    for method in ("reading_cpmlho_t2", "reading_cpmlho_t3"):
        made(other, method, [0.29, 0.30, 0.31], [10.0, 7.0])
    protocol = load(tmp_path / "main", run=run([]), multiverse=str(tmp_path / "curve"))
    for method, losses in LOSSES.items():
        made(protocol, method, losses, [10.0, 7.0] if method.startswith("cpmlho") else None)
    assert beside(Study(protocol)) is None
    for each in (protocol, other):
        write_tables(each)
        write_figures(each)
    write_page(protocol)
    page = text(protocol, "report.html")
    assert '<a href="../curve/report.html">3 specifications</a>' in page
    said = "MNIST: of 3 specifications 3 show CPMLHO below Δ-STN and 3 below its own comparator; 0 diverged;"
    assert f"<p>{said}" in page  # in the answer
    assert f"<li>{said}" in page  # and among what it rests on
    write_text(tmp_path / "curve/tables/multiverse.csv", "")
    with pytest.raises(ResultError, match=r"multiverse.csv: damaged"):
        write_page(protocol)


@pytest.mark.slow
def test_a_curve_that_is_not_made_is_said_to_be(tmp_path: Path) -> None:
    protocol = load(tmp_path, run=run([]), multiverse="nowhere")
    made(protocol, "cpmlho", LOSSES["cpmlho"])
    write_tables(protocol)
    write_figures(protocol)
    write_page(protocol)
    assert "The specification curve (nowhere) has not been made yet" in text(protocol, "report.html")


@pytest.mark.slow
def test_what_is_reproduced_is_said_by_reading_and_comparator() -> None:
    columns = ["claim", "reading", "comparator", "verdict", "exploratory"]
    cases = [
        ("C1", "centred", "delta_stn", "not reproduced", False),
        ("C1", "uncentred", "delta_stn", "reproduced", True),
        ("C5", "uncentred", "delta_stn", "reproduced", True),
        ("C5", "uncentred", "delta_stn", "reproduced", False),
        ("C2", "uncentred", "", "reproduced", False),
    ]
    assert list(reproduced(pd.DataFrame(cases, columns=columns))) == [
        "in the uncentred reading, against Δ-STN: C1 (exploratory), C5",
        "in the uncentred reading: C2",
    ]
    assert list(reproduced(pd.DataFrame(cases[:1], columns=columns))) == []


def test_where_no_claim_is_judged_the_page_answers_with_the_curve(tmp_path: Path) -> None:
    asked = {"datasets": ["mnist"], "methods": ["delta_stn"], "variants": [], "seeds": [0, 1, 2]}
    protocol = load(tmp_path, run=asked, grids={"reading": SPECIFICATIONS})
    for method in ("delta_stn", "reading_cpmlho_t2", "reading_cpmlho_t3"):
        made(protocol, method, LOSSES["delta_stn"])
    for each in (write_tables, write_figures, write_page):
        each(protocol)
    page = unescape(text(protocol, "report.html"))
    assert "None of the paper's 8 claims is judged here: that takes runs of cpmlho or cpmlho_uncentred." in page
    assert page.index('id="specification_curve"') < page.index('id="about"')
    assert page.count('id="specification_curve"') == 1
    assert "inconclusive" not in page.partition("<main>")[2].partition('id="tables"')[0]
