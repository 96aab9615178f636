"""The report: one page, whole in itself, that leads from each number to the runs behind it."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_reporting import fill, load, write

from cpmlho.study.protocol import Protocol, RunKey
from cpmlho.study.report.write import write_figures, write_page, write_tables


class Page(HTMLParser):
    """What a browser would see of a page: elements open and closed, links, anchors, what it loads, its text."""

    VOID = frozenset({"meta", "img", "input", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.anchors: list[str] = []
        self.loaded: list[str] = []
        self.alternatives: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if tag not in self.VOID:
            self.open.append(tag)
        if "id" in named:
            self.anchors.append(named["id"])
        if tag == "a":
            self.links.append(named["href"])
        if tag == "img":
            self.loaded.append(named["src"])
            self.alternatives.append(named["alt"])
        assert tag not in ("link", "iframe"), "the page must be whole in itself"
        assert not (tag == "script" and "src" in named)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Protocol, Page]:
    """A report on made-up runs, one of them missing and one diverged."""
    variants = {
        "cpmlho_theta_10": {"base": "cpmlho", "settings": {"theta": 10.0}},
        "delta_stn_long": {"base": "delta_stn", "epochs": 30},
        "cpmlho_long": {"base": "cpmlho", "epochs": 30},
    }
    run = {"variants": [*variants, "cpmlho_values"]}
    protocol = load(tmp_path_factory.mktemp("report"), note="made up <b>&", run=run, variants=variants)
    fill(protocol, skip=(RunKey("mnist", "random_search", 1),))
    write(protocol, RunKey("mnist", "cpmlho", 2), math.nan, status="diverged")
    write_tables(protocol)
    write_figures(protocol)
    write_page(protocol)
    return protocol, Page(Path(protocol.results_dir, "report.html").read_text(encoding="utf-8"))


def test_every_element_is_closed(made: tuple[Protocol, Page]) -> None:
    assert made[1].open == []


def test_every_link_leads_somewhere(made: tuple[Protocol, Page]) -> None:
    protocol, page = made
    assert len(page.anchors) == len(set(page.anchors))
    for link in page.links:
        target = link.removeprefix("#")
        if link.startswith("#"):
            assert target in page.anchors
        else:
            assert Path(protocol.results_dir, link).is_file(), link


def test_every_run_is_linked(made: tuple[Protocol, Page]) -> None:
    protocol, page = made
    for result in Path(protocol.results_dir).glob("runs/*/*/*/result.json"):
        assert result.relative_to(protocol.results_dir).as_posix() in page.links


def test_nothing_is_loaded_from_elsewhere_and_pictures_have_words(made: tuple[Protocol, Page]) -> None:
    _, page = made
    assert page.loaded
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.loaded)
    assert all(len(words) > 40 for words in page.alternatives)


def test_note_and_runs_are_said_once_and_the_protocol_is_named(made: tuple[Protocol, Page]) -> None:
    protocol, page = made
    assert page.words.count("made up <b>&") == 1
    done = len(list(Path(protocol.results_dir).glob("runs/*/*/*/result.json"))) - 1
    assert (
        f"Protocol “{Path(protocol.results_dir).name}”: {done} of {done + 2} runs are finished, 1 more diverged"
        in page.words
    )
    assert "[n=2/3, 1 missing]" in page.words
    assert "Commits that made them: c0ffee" in page.words


def test_what_has_nothing_to_show_is_left_out(made: tuple[Protocol, Page]) -> None:
    _, page = made
    assert "nothing to draw" not in page.words
    assert "no runs for this table" not in page.words
    for anchor in ("splits", "step-size"):  # of which no run was made
        assert anchor not in page.anchors
    assert {"tables", "ablations", "budgets", "claims"} <= {*page.anchors}


@pytest.mark.slow
def test_with_a_single_run_it_is_still_a_page(tmp_path: Path) -> None:
    protocol = load(tmp_path)
    write(protocol, RunKey("mnist", "random_search", 1), 0.3)
    write_tables(protocol)
    write_figures(protocol)
    write_page(protocol)
    page = Page(Path(protocol.results_dir, "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert "Too few seeds to judge CPMLHO" in page.words
