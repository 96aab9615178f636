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
    readme = (ROOT / "README.md").read_text()
    opening = readme[: readme.index("## Two commands")]
    with (RESULTS / "tables" / "verdicts.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            [line] = [line for line in opening.splitlines() if line.startswith(f"| {row['claim']},")]
            assert f"**{row['verdict']}**" in line
            assert row["decisive"] in line


def test_its_report_links_every_run():
    report = (RESULTS / "report.html").read_text(encoding="utf-8")
    results = [path.relative_to(RESULTS).as_posix() for path in RESULTS.glob("runs/*/*/*/result.json")]
    assert results
    assert [path for path in results if f'href="{path}"' not in report] == []
