"""The published run: its tables are what its result files give, and the README says what they say."""

import csv
from pathlib import Path

import pytest

from cpmlho.study.protocol import load
from cpmlho.study.report.write import write_tables

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """The tables, made anew from the committed runs."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "runs").symlink_to(RESULTS / "runs")
    write_tables(load([ROOT / "config.yaml", ROOT / "workflow/published.yaml"], {"results_dir": str(folder)}))
    return folder / "tables"


@pytest.mark.parametrize("name", ["table1", "table2", "table3", "verdicts", "claims", "variants", "transfer"])
def test_its_tables_are_what_its_runs_give(again, name):
    assert (again / f"{name}.csv").read_text() == (RESULTS / "tables" / f"{name}.csv").read_text()


def test_the_readme_opens_with_its_verdicts():
    """Each line of the README's table is one of the verdicts', and every verdict at the paper's split is there."""
    readme = (ROOT / "README.md").read_text()
    shown = readme[readme.index("<!-- verdicts -->") : readme.index("<!-- end -->")].splitlines()[1:]
    table = (RESULTS / "tables" / "verdicts.md").read_text().splitlines()
    lines = [line for line in table if line.startswith("|")]
    with (RESULTS / "tables" / "verdicts.csv").open(encoding="utf-8", newline="") as file:
        at_its_split = [row["split"] == "last" for row in csv.DictReader(file)]
    assert len(at_its_split) == len(lines) - 2
    wanted = [*lines[:2], *(line for line, chosen in zip(lines[2:], at_its_split, strict=True) if chosen)]
    assert [line for line in shown if line in wanted] == wanted
    assert set(shown) <= set(lines)


def test_its_report_links_every_run():
    report = (RESULTS / "report.html").read_text(encoding="utf-8")
    results = [path.relative_to(RESULTS).as_posix() for path in RESULTS.glob("runs/*/*/*/result.json")]
    assert results
    assert [path for path in results if f'href="{path}"' not in report] == []
