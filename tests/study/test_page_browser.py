"""The published page in a real browser: widths, schemes, sorting, filtering, the way to a run, no network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
RESULTS = Path(__file__).parents[2] / "results"
PAGE = RESULTS / "published" / "report.html"
CHROMIUM = shutil.which("chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, "--disable-component-update"])
        yield browser
        browser.close()


@pytest.mark.parametrize("name", ["published", "multiverse"])
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (800, "dark"), (1400, "light")])
def test_the_page_fits_and_loads_nothing(browser: Any, width: int, scheme: str, name: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((RESULTS / name / "report.html").as_uri())
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(browser: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    page = browser.new_page(color_scheme=scheme)
    page.goto(PAGE.as_uri())
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    found = axe.run(page).response
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found["violations"]] == []
    assert len(found["passes"]) > 20  # rules that had something to look at
    page.close()


def test_the_first_screen_has_the_verdict_and_the_matrix_and_a_cell_leads_to_its_claim(browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(PAGE.as_uri())
    assert page.locator("p.answer").bounding_box()["y"] < 300
    matrix = page.locator("table.matrix")
    assert matrix.bounding_box()["y"] + matrix.bounding_box()["height"] < 900
    assert matrix.locator("tbody tr").count() == 9  # the paper's eight claims, and values and ranking together
    cell = matrix.locator("tbody tr").first.locator("td a").first
    assert len(cell.get_attribute("title")) > 20
    cell.click()
    page.locator("details#claim-C1[open]").wait_for()
    page.close()


def test_on_paper_every_claim_is_open_and_the_lists_of_runs_are_left_out(browser: Any) -> None:
    page = browser.new_page()
    page.goto(PAGE.as_uri())
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open]):visible").count() == 0
    assert page.locator("details#claim-C1 table").is_visible()
    assert page.locator("button.record:visible").count() == 0
    page.close()


def test_a_column_sorts_by_its_head_with_the_keyboard_too(browser: Any) -> None:
    page = browser.new_page()
    page.goto(PAGE.as_uri())
    table = page.get_by_role("region", name="Splits", exact=True).locator("table")
    column = table.locator("thead th", has_text="On the random split")
    index = [head.inner_text() for head in table.locator("thead th").all()].index(column.inner_text())

    def cells() -> list[float]:
        rows = table.locator("tbody tr").all()
        return [float(row.locator("td").nth(index).inner_text().replace("−", "-")) for row in rows]

    before = cells()
    column.locator("button").focus()
    for order in ("ascending", "descending"):
        page.keyboard.press("Enter")
        assert column.get_attribute("aria-sort") == order
        assert cells() == sorted(before, reverse=order == "descending")
    page.close()


def test_a_filter_hides_the_rows_without_its_words(browser: Any) -> None:
    page = browser.new_page()
    page.goto(PAGE.as_uri())
    field = page.locator("input.filter").first
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    field.fill("no row has these words")
    label = field.get_attribute("aria-label").removeprefix("Show the rows of ").removesuffix(" that have these words")
    table = page.get_by_role("region", name=label, exact=True).locator("table")
    assert table.locator("tbody tr:visible").count() == 0
    field.fill("")
    assert table.locator("tbody tr:visible").count() > 12
    page.close()


def test_a_number_leads_to_its_runs_and_these_to_their_records(browser: Any) -> None:
    page = browser.new_page()
    page.goto(PAGE.as_uri())
    page.locator('td a[href="#mnist/cpmlho"]:visible').first.click()
    group = page.locator("details#mnist\\/cpmlho[open]")
    group.wait_for()  # the browser tells the page of the new place after the click
    group.locator("button", has_text="result.json").first.click()
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    assert dialog.get_by_role("heading").inner_text() == "runs/mnist/cpmlho/seed0"
    record = json.loads(dialog.locator("pre").inner_text())
    assert (record["spec"]["seed"], record["status"]) == (0, "done")
    assert record["final"]["val_loss"] == pytest.approx(0.1819, abs=1e-4)
    assert "data_dir" not in record["spec"]
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    page.close()


def test_inside_another_page_a_link_leads_nowhere_but_within(browser: Any, tmp_path: Path) -> None:
    shutil.copy(PAGE, tmp_path / "report.html")
    (tmp_path / "outer.html").write_text('<iframe sandbox="allow-scripts" src="report.html" width=1000 height=800>')
    page = browser.new_page()
    page.goto((tmp_path / "outer.html").as_uri())
    inner = page.frames[1]
    inner.wait_for_selector("h1")
    assert inner.locator('a[href^="runs/"]').count() == 0
    inner.locator('nav a[href="#runs"]').click()
    assert inner.locator("h1").inner_text().startswith("CPMLHO")
    page.close()
