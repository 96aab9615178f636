"""The published run: its tables are what its result files give, and the README says what they say."""

import csv
import html
import json
import re
from pathlib import Path

import pytest

from cpmlho.study.protocol import load
from cpmlho.study.report.write import write_tables

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"


@pytest.fixture(scope="module")
def again(published):
    """The tables, made anew from the committed runs."""
    write_tables(load([ROOT / "config.yaml", ROOT / "workflow/published.yaml"], {"results_dir": str(published)}))
    return published / "tables"


@pytest.mark.parametrize("name", ["table1", "table2", "table3", "verdicts", "claims", "variants", "transfer"])
def test_its_tables_are_what_its_runs_give(again, name):
    assert (again / f"{name}.csv").read_text() == (RESULTS / "tables" / f"{name}.csv").read_text()


def test_the_numbers_of_the_readmes_answer_are_those_of_the_tables():
    readme = (ROOT / "README.md").read_text()
    answer = readme[readme.index("<!-- answer -->") : readme.index("<!-- end -->")]
    with (RESULTS / "tables" / "verdicts.csv").open(encoding="utf-8", newline="") as file:
        verdicts = [row["verdict"] for row in csv.DictReader(file)]
    counts = [verdicts.count(name) for name in ("reproduced", "not reproduced", "inconclusive")]
    found = f"reproduce {counts[0]}, do not reproduce {counts[1]}, and leave {counts[2]} undecided"
    assert f"Of the paper's {len(verdicts)} claims, the runs published here {found}." in answer
    with (RESULTS / "figures" / "forest.csv").open(encoding="utf-8", newline="") as file:
        rows = {(row["dataset"], row["other"]): row for row in csv.DictReader(file)}
    for other in ("delta_stn", "fixed"):
        for dataset, name in (("mnist", "MNIST"), ("fashionmnist", "FashionMNIST")):
            mean, low, high = (float(rows[dataset, other][key]) for key in ("mean", "ci_low", "ci_high"))
            assert f"{mean:+.4f} on {name} ({low:+.4f} to {high:+.4f}" in answer
    assert all(row["n_seeds"] == "10" for row in rows.values())


def test_its_report_has_the_record_of_every_run(published):
    report = (RESULTS / "report.html").read_text(encoding="utf-8")
    records = json.loads(re.search(r'id="records">(.*?)</script>', report)[1])
    files = {path.parent.relative_to(published).as_posix(): path for path in published.glob("runs/*/*/*/result.json")}
    assert len(files) > 200
    assert {folder: path.read_text() for folder, path in files.items()} == records
    assert set(records) == set(map(html.unescape, re.findall(r'class="record" value="(.*?)"', report)))
