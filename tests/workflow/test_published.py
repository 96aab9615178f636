"""The published run: its tables are what its result files give, and the README says what they say."""

import csv
import html
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from cpmlho.study.protocol import load
from cpmlho.study.report.frame import LOSS, read_csv
from cpmlho.study.report.paper import paper_effect
from cpmlho.study.report.stats import paired
from cpmlho.study.report.tables.multiverse import sentence
from cpmlho.study.report.write import write_tables
from runs import unpacked

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "published"
NAMES = {"mnist": "MNIST", "fashionmnist": "FashionMNIST"}
CURVE = ROOT / "results" / "multiverse" / "tables" / "multiverse.csv"


@pytest.fixture(scope="module")
def again(published):
    """The tables, made anew from the committed runs."""
    write_tables(load([ROOT / "config.yaml", ROOT / "workflow/published.yaml"], {"results_dir": str(published)}))
    return published / "tables"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table1", "table2", "table3", "verdicts", "claims", "variants", "transfer"])
def test_its_tables_are_what_its_runs_give(again, name):
    assert (again / f"{name}.csv").read_text() == (RESULTS / "tables" / f"{name}.csv").read_text()


@pytest.mark.slow
def test_the_specification_curve_is_what_its_runs_give(tmp_path):
    folder = unpacked("multiverse", tmp_path)
    write_tables(load([ROOT / "config.yaml", ROOT / "workflow/multiverse.yaml"], {"results_dir": str(folder)}))
    assert (folder / "tables/multiverse.csv").read_text() == CURVE.read_text()


ANSWERED = {
    "uncentred: Δ-STN": ("cpmlho_uncentred", "delta_stn"),
    "uncentred: STN": ("cpmlho_uncentred", "stn"),
    "centred: Δ-STN": ("cpmlho", "delta_stn"),
    "centred: no tuning": ("cpmlho", "fixed"),
}
SIGNS = {"uncentred: Δ-STN": [-1, -1], "uncentred: STN": [0, 0], "centred: Δ-STN": [0, 0]}  # as it says in words


def rows(path):
    with (RESULTS / path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def finished(path):
    """The runs of a table that are done, by dataset."""
    runs = read_csv(path)
    return dict(list(runs[runs["status"] == "done"].groupby("dataset")))


@pytest.fixture
def answer():
    """What the README says of the claims."""
    readme = (ROOT / "README.md").read_text()
    return readme[readme.index("<!-- answer -->") : readme.index("<!-- end -->")]


def test_the_readme_counts_the_specifications(answer):
    counted = [sentence(NAMES[dataset], rows) for dataset, rows in read_csv(CURVE).groupby("dataset", sort=False)]
    assert counted
    assert all(each in answer for each in counted)


def test_the_numbers_of_the_readmes_answer_are_those_of_the_tables(answer):
    cases, runs = rows("tables/verdicts.csv"), rows("tables/runs.csv")
    verdicts = [row["verdict"] for row in cases]
    counts = [verdicts.count(name) for name in ("reproduced", "not reproduced", "inconclusive")]
    claims = len({row["claim"] for row in cases})
    held = [row for row in cases if row["verdict"] == "reproduced"]
    assert {(row["reading"], row["comparator"]) for row in held} == {("uncentred", "delta_stn")}
    few = sum(row["exploratory"] == "True" for row in held)
    assert (
        f"Of the paper's {claims} claims in {len(cases)} cases, by reading, comparator and split, "
        f"the {sum(row['status'] != 'missing' for row in runs)} of {len(runs)} runs made so far "
        f"reproduce {counts[0]} (all uncentred, against Δ-STN; {few} exploratory), "
        f"do not reproduce {counts[1]}, and leave {counts[2]} undecided."
    ) in answer
    for method, words in (("cpmlho_uncentred", "with CPMLHO's parts in"), ("stn", "without them in")):
        made = [row["status"] for row in runs if (row["dataset"], row["method"]) == ("fashionmnist", method)]
        made = [status for status in made if status != "missing"]
        assert f"{words} {made.count('diverged')} of {len(made)}" in answer


def test_the_table_of_the_readmes_answer_is_what_the_forest_plot_shows(answer):
    differences = {(row["method"], row["other"], row["dataset"]): row for row in rows("figures/forest.csv")}
    for words, pair in ANSWERED.items():
        cells, signs = [], []
        for dataset in NAMES:
            row = differences[(*pair, dataset)]
            mean, low, high = (float(row[key]) for key in ("mean", "ci_low", "ci_high"))
            cells.append(f"{mean:+.4f} ({low:+.4f} to {high:+.4f}; {row['n_seeds']})")
            signs.append((low > 0) - (high < 0))
        assert f"| {words} | {' | '.join(cells)} |" in answer
        assert SIGNS.get(words, signs) == signs
    printed = [paper_effect(dataset, "cpmlho", "delta_stn", "val_loss") for dataset in NAMES]
    assert f"by more than the paper prints ({' and '.join(f'−{-effect:.3f}' for effect in printed)})" in answer
    assert all(
        float(differences["cpmlho_uncentred", "delta_stn", each]["ci_high"]) < effect
        for each, effect in zip(NAMES, printed, strict=True)
    )
    assert len(re.findall(r"[-+−]\d\.\d+", answer)) == len(NAMES) * (3 * len(ANSWERED) + 1)  # and no other number


def test_what_the_readme_says_below_its_answer_is_what_the_tables_say():
    """Step size: level; random splits: above their own comparator; the readings below theirs: above STN without."""
    readme = " ".join((ROOT / "README.md").read_text().split())
    matched = {
        row["dataset"]: row
        for row in rows("tables/step_size.csv")
        if row["method"] == "cpmlho_uncentred" and row["nearest"] == "True"
    }
    for dataset, rate, words in (
        ("mnist", "0.0025", "a quarter of the rate"),
        ("fashionmnist", "0.00125", "an eighth"),
    ):
        row = matched[dataset]
        mean, low, high = (float(row[f"difference_{each}"]) for each in ("mean", "ci_low", "ci_high"))
        said = f"{low:+.4f} to {high:+.4f}, {words}, {row['difference_n_seeds']} seeds"
        assert (row["rate"], row["last"]) == (rate, "False")
        assert low < 0 < high
        assert f"{mean:+.4f} on {NAMES[dataset]} ({said})" in readme
    further = paired(
        finished(RESULTS / "tables/runs.csv")["mnist"], "cpmlho_uncentred", "rate_four_times_delta_stn", LOSS
    )
    said = f"{further.mean:.4f} ({further.ci_low:.4f} to {further.ci_high:.4f}, {further.n_seeds} seeds)"
    assert f"On MNIST Δ-STN at four times the rate ends {said} below CPMLHO at the rate itself." in readme
    splits = {(row["dataset"], row["method"], row["other"]): row for row in rows("tables/splits.csv")}
    mnist, fashion = (
        [splits[dataset, *own] for own in (("cpmlho", "delta_stn"), ("cpmlho_uncentred", "stn"))] for dataset in NAMES
    )
    assert all(float(row["random_difference_ci_low"]) > 0 for row in mnist)
    assert all(float(row["random_difference_ci_low"]) < 0 < float(row["random_difference_ci_high"]) for row in fashion)
    assert [row["random_difference_n_seeds"] for row in (*mnist, *fashion)] == ["10", "10", "10", "9"]
    values = [float(row[f"random_difference_{each}"]) for row in mnist for each in ("mean", "ci_low", "ci_high")]
    said = "on MNIST, by {:.4f} ({:.4f} to {:.4f}, centred) and {:.4f} ({:.4f} to {:.4f}); on FashionMNIST neither"
    assert said.format(*values) in readme

    curve = read_csv(CURVE)
    below = sorted(curve[curve["own_ci_high"] < 0]["specification"])
    assert below == [
        "fashion_uncentred_weight_adbo",
        "reading_uncentred_raw_adbo_warm",
        "reading_uncentred_weight_adbo_warm",
        "satellite_uncentred_l1",
    ]
    assert curve.set_index("specification").loc[below[3], "g_ratio"] > 0.99
    assert "Four uncentred specifications" in readme
    runs = finished(CURVE.with_name("runs.csv"))
    found = [paired(runs["mnist"], each, "stn", LOSS) for each in below[1:3]]
    assert all(each.ci_low > 0 for each in found)
    first, second = (f"{each.mean:.3f} ({each.ci_low:.3f} to {each.ci_high:.3f})" for each in found)
    assert f"end {first} and {second} above STN without warm-up; of the third g hardly fell." in readme


def test_what_the_readme_says_of_fashionmnist_is_what_the_runs_say():
    """The reading below its own comparator: against that, and what step size makes of it."""
    readme = " ".join((ROOT / "README.md").read_text().split())
    own, name = finished(RESULTS / "tables/runs.csv")["fashionmnist"], "fashion_uncentred_weight_adbo"
    its = finished(CURVE.with_name("runs.csv"))["fashionmnist"]
    its = its[its["method"] == name]
    assert len(own[own["method"] == "rate_half_stn"]) == len(its) == 5
    assert "The fourth, on FashionMNIST, never diverged; nor did STN at half the learning rate, minus whose" in readme
    both = pd.concat([own, its])
    half = paired(both, name, "rate_half_stn", LOSS)
    assert f"its own is {half.mean:+.3f} ({half.ci_low:+.3f} to {half.ci_high:+.3f}, {half.n_seeds} seeds)" in readme


@pytest.mark.parametrize(
    ("dataset", "sides", "said"),
    [
        ("fashionmnist", [0, 0], "{}, random) and {}, Bayesian) on FashionMNIST (10 seeds),"),
        ("mnist", [1, 0], "{}) and {}) on MNIST (6 seeds)."),
    ],
)
def test_what_the_readme_says_of_searches_with_the_same_start_is_what_the_runs_say(dataset, sides, said):
    """Below neither: where no search's loss is above CPMLHO's, the lead on them is gone."""
    own = finished(RESULTS / "tables/runs.csv")[dataset]
    found = [paired(own, "cpmlho", f"{name}_logit", LOSS) for name in ("random_search", "bayesian_optimization")]
    assert [(each.ci_low > 0) - (each.ci_high < 0) for each in found] == sides
    assert all(f"({each.n_seeds} seeds)" in said for each in found)
    values = [f"{each.mean:+.4f} ({each.ci_low:+.4f} to {each.ci_high:+.4f}" for each in found]
    assert said.format(*values) in " ".join((ROOT / "README.md").read_text().split())


def test_its_report_has_the_record_of_every_run(published):
    report = (RESULTS / "report.html").read_text(encoding="utf-8")
    records = json.loads(re.search(r'id="records">(.*?)</script>', report)[1])
    files = {path.parent.relative_to(published).as_posix(): path for path in published.glob("runs/*/*/*/result.json")}
    assert len(files) > 50
    assert {folder: path.read_text() for folder, path in files.items()} == records
    assert set(records) == set(map(html.unescape, re.findall(r'class="record" value="(.*?)"', report)))
