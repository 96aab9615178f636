"""The published run: its tables are what its result files give, and its pages and the README what the tables say."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from cpmlho.study.protocol import load
from cpmlho.study.report.readme import BEGIN, END, block
from cpmlho.study.report.write import write_tables
from runs import unpacked

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
TABLES = {
    "published": ["table1", "table2", "table3", "verdicts", "claims", "robust", "differences", "matched", "variants"],
    "multiverse": ["multiverse", "divergence"],
}


@pytest.fixture(scope="module", params=TABLES)
def again(request, tmp_path_factory):
    """A protocol's name, and its tables made again from the committed runs."""
    name = request.param
    folder = unpacked(name, tmp_path_factory.mktemp(name))
    write_tables(load([ROOT / "config.yaml", ROOT / "workflow" / f"{name}.yaml"], {"results_dir": str(folder)}))
    return name, folder / "tables"


@pytest.mark.slow
def test_the_tables_are_what_the_runs_give(again):
    name, folder = again
    for table in TABLES[name]:
        assert (folder / f"{table}.csv").read_text() == (RESULTS / name / "tables" / f"{table}.csv").read_text(), table


def test_the_readmes_answer_is_what_the_tables_say():
    """After a change, `python -m cpmlho.study.report.readme` writes it again."""
    _, _, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition(BEGIN)
    written, end, _ = rest.partition(END)
    assert end
    assert written == f"\n{block(ROOT)}"


# As an independent computation from the result files gave them.
KNOWN = [
    ("matched", {"dataset": "mnist", "method": "cpmlho_uncentred"}, "difference_mean", 0.0033, 5e-5),
    ("matched", {"dataset": "mnist", "method": "cpmlho_uncentred"}, "difference_ci_low", 0.0009, 5e-5),
    ("matched", {"dataset": "fashionmnist", "method": "cpmlho_uncentred"}, "difference_mean", 0.0015, 5e-5),
    ("matched", {"dataset": "fashionmnist", "method": "cpmlho_uncentred"}, "difference_ci_high", 0.0047, 5e-5),
    ("matched", {"dataset": "mnist", "method": "stn"}, "difference_mean", 0.0028, 5e-5),
    ("matched", {"dataset": "fashionmnist", "method": "stn"}, "difference_mean", 0.0036, 5e-5),
    ("differences", {"dataset": "mnist", "method": "cpmlho", "other": "delta_stn"}, "detectable", 0.00017, 5e-6),
    ("differences", {"dataset": "fashionmnist", "method": "cpmlho", "other": "delta_stn"}, "detectable", 0.0027, 5e-5),
    (
        "splits",
        {"dataset": "fashionmnist", "method": "cpmlho", "other": "fixed"},
        "random_difference_mean",
        -0.0132,
        5e-5,
    ),
]


@pytest.mark.parametrize(("table", "where", "column", "value", "tolerance"), KNOWN)
def test_numbers_are_those_of_an_independent_computation(table, where, column, value, tolerance):
    with (RESULTS / "published" / "tables" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if where.items() <= row.items()]
    assert float(row[column]) == pytest.approx(value, abs=tolerance)


@pytest.mark.parametrize("name", TABLES)
def test_a_page_is_small_and_names_no_path_of_a_machine(name):
    page = (RESULTS / name / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) <= 2_000_000
    assert re.findall(r"""["' >]/(?:tmp|work|home|root|Users)/""", page) == []
