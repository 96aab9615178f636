"""What a person is told of a workflow: before, while it goes, and at its end."""

import csv
import logging
import shutil
from pathlib import Path

import pytest

from cpmlho.study import overview as module
from cpmlho.study.conclusion import beside_the_published, places
from cpmlho.study.files import SUMS, seal
from cpmlho.study.overview import Forecast, Overview, duration
from cpmlho.study.protocol import RunKey, load
from cpmlho.study.results import METRICS
from cpmlho.study.workflow import Plan

ROOT = Path(__file__).parents[2]
KEYS = [RunKey("mnist", "cpmlho", seed) for seed in range(4)]
RUNS = {"datasets": ["mnist"], "methods": ["cpmlho"], "variants": [], "seeds": [0, 1, 2, 3]}


@pytest.fixture
def plan(tmp_path):
    return Plan(load([ROOT / "config.yaml"], {"run": RUNS, "results_dir": str(tmp_path)}), cores=2)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute"),
        (29, "less than a minute"),
        (31, "about 1 min"),
        (59 * 60, "about 59 min"),
        (60 * 60, "about 1 h"),
        (71 * 60, "about 1 h 10 min"),
        (119 * 60, "about 2 h"),
        (6.49 * 3600, "about 6 h 30 min"),
    ],
)
def test_a_time_is_as_exact_as_it_can_be_known(seconds, words):
    assert duration(seconds) == words


def test_the_time_left_is_what_was_foreseen_corrected_by_what_was_measured():
    forecast = Forecast(dict.fromkeys(KEYS, 10.0), beside=2)
    for key in KEYS[:2]:
        forecast.begin(key, 0.0, 1)
    forecast.end(KEYS[0], 20.0)  # twice as long as foreseen
    forecast.begin(KEYS[2], 20.0, 1)
    assert (forecast.done, forecast.total) == (1, 4)
    assert forecast.left(20.0) == pytest.approx((3 * 20 - 20) / 2)  # the second run, as old, is about to end
    assert forecast.left(30.0) == pytest.approx((3 * 20 - 20 - 10) / 2)
    forecast.end(KEYS[1], 30.0)
    forecast.drop(KEYS[2])
    assert forecast.done == 2
    assert forecast.left(30.0) == pytest.approx((2 * 10) * (20 + 30) / 20 / 2)


def record(event=None, level=logging.INFO, message="", **fields):
    made = logging.LogRecord("snakemake", level, "", 0, message, None, None)
    made.__dict__.update(fields, **({"event": event} if event else {}))
    return made


def begins(job, seed):
    wildcards = {"dataset": "mnist", "method": "cpmlho", "seed": str(seed)}
    return record("job_info", jobid=job, rule_name="run", rule_msg="", wildcards=wildcards, threads=1)


def test_overall_progress_takes_the_place_of_single_jobs(plan):
    lines = []
    overview = Overview(plan, lines.append)
    overview.begin(KEYS[:2])
    assert lines == ["2 runs to train (2 are done), about 1 MB of disk."]
    assert not overview.filter(begins(7, 0))
    assert not overview.filter(begins(8, 1))
    assert not overview.filter(record("job_finished", job_id=7))
    assert not overview.filter(record("progress"))
    assert not overview.filter(record("job_finished", job_id=8))
    assert lines[1:] == ["1 of 2 runs, less than a minute left", "2 of 2 runs"]
    assert overview.filter(record("error", logging.ERROR, "No space left"))
    assert overview.filter(record(None, logging.WARNING, "an output is missing"))


def test_where_nothing_is_to_be_done_the_end_is_the_same(plan):
    said = []
    overview = Overview(plan, said.append, lambda: said.append("the end"))
    assert overview.filter(record(None, logging.INFO, "Building DAG of jobs..."))
    assert not overview.filter(record(None, logging.INFO, "Nothing to be done (all is up to date)."))
    assert said == ["Nothing to be done (all is up to date).", "the end"]


def test_a_failure_is_two_lines(plan, tmp_path):
    lines = []
    overview = Overview(plan, lines.append)
    overview.begin(KEYS)
    log = tmp_path / "a log"
    log.write_text("Traceback\n  many\nValueError: the reason\n\n")
    overview.filter(begins(7, 0))
    assert not overview.filter(record("job_error", logging.ERROR, jobid=7, rule_name="run", log=[str(log)]))
    assert lines[-1] == f"Error: mnist/cpmlho/seed0: ValueError: the reason\n  its log: {log}"
    overview.filter(begins(9, 0))  # tried again
    overview.filter(record("job_finished", job_id=9))
    assert lines[-1].startswith("1 of 4 runs")


def test_a_long_protocol_is_announced_with_its_time(plan, monkeypatch):
    monkeypatch.setattr(module, "EPOCHS_WORTH_MEASURING", 0)
    monkeypatch.setattr(module, "measured", lambda plan, keys: dict.fromkeys(keys, 3600.0))
    monkeypatch.setattr(module, "available_cpu_count", lambda: 2)
    lines = []
    Overview(plan, lines.append).begin(KEYS)
    assert lines[0] == "4 runs to train, about 1 MB of disk."
    assert lines[1].startswith("On this machine that takes about 2 h, by a few steps of each kind, 2 at a time.")


@pytest.mark.slow
def test_a_few_steps_of_each_kind_are_measured(plan):
    plan.write()
    keys = [RunKey("mnist", method, 0) for method in ("random_search", "fixed", "cpmlho")]
    seconds = module.measured(plan, keys)
    trials = plan.protocol.methods["random_search"].trials
    assert seconds[keys[0]] == pytest.approx(trials * seconds[keys[1]])
    assert all(value > 0 for value in seconds.values())


def test_what_was_not_made_is_not_named(plan, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(ROOT)
    assert list(places(plan, {"data", "run", "tables"}, ROOT)) == [
        f"Tables:  {tmp_path}/tables (table1.md to table3.md)",
        "MLflow:  make ui",
    ]
    assert [line.partition(":")[0] for line in places(plan, {"figures", "report"}, ROOT)] == ["Report", "Figures"]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://somebody:s3cret@host:5000", "http://host:5000"),
        ("sqlite:////elsewhere/mlflow.db", "/mlflow ui --backend-store-uri 'sqlite:////elsewhere/mlflow.db'"),
    ],
)
def test_the_store_that_is_used_is_named(plan, monkeypatch, uri, shown):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    [line] = places(plan, {"run"}, ROOT)
    assert line.startswith("MLflow:  ")
    assert line.endswith(shown)
    assert "s3cret" not in line


def publish(folder, losses, **fields):
    """A published table of CPMLHO's runs on MNIST, and its verdicts."""
    (folder / "tables").mkdir(parents=True)
    rows = [
        {"dataset": "mnist", "method": "cpmlho", "seed": seed, "status": "done", "stale": "False"}
        | {f"final_{metric}": loss for metric in METRICS}
        | fields
        for seed, loss in enumerate(losses)
    ]
    for name, content in (("runs", rows), ("verdicts", [{"claim": "C1", "verdict": "inconclusive"}])):
        with (folder / "tables" / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    seal(folder / "tables", ["runs.csv", "verdicts.csv"])


@pytest.fixture
def root(tmp_path):
    """A checkout with three published runs."""
    publish(tmp_path / "root" / "results" / "published", [1.0, 2.0, 3.0])
    (tmp_path / "root" / "workflow").mkdir()
    for name in ("config.yaml", "workflow/published.yaml"):
        (tmp_path / "root" / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path / "root"


@pytest.mark.parametrize(("loss", "says"), [(1.5, "they agree."), (4.0, "more than 1, they do not agree.")])
def test_the_end_says_how_the_runs_agree_with_the_published(plan, root, monkeypatch, loss, says):
    ours = {KEYS[0]: dict.fromkeys(METRICS, loss)}
    monkeypatch.setattr("cpmlho.study.conclusion._ours", lambda plan, asked: ours)
    first, verdicts, own = beside_the_published(plan, root)
    assert first.startswith("Of your 4 runs 1 have the settings of a published one; the largest difference is ")
    assert f"{abs(loss - 1):.2g} of the seeds' standard deviation (mnist/cpmlho/seed0, " in first
    assert first.endswith(says)
    assert verdicts == "Published verdicts:  inconclusive: C1"
    assert own == "Your seeds alone:    none, as there are no whole tables"


def damage(folder, how):
    runs, verdicts = folder / "runs.csv", folder / "verdicts.csv"
    if how == "no tables":
        shutil.rmtree(folder)
    elif how == "one is missing":
        verdicts.unlink()
    elif how == "edited":
        runs.write_text(runs.read_text().replace("2.0", "2.5"))
    elif how == "cut short":
        verdicts.write_bytes(verdicts.read_bytes()[:9])
    elif how == "not text":
        (folder / SUMS).write_bytes(b"\xff")
    else:
        before, after = {"columns of another version": ("final_val_loss", "val_loss"), "words": ("2.0", "two")}[how]
        runs.write_text(runs.read_text().replace(before, after))
        seal(folder, ["runs.csv", "verdicts.csv"])


@pytest.mark.parametrize(
    "how", ["no tables", "one is missing", "edited", "cut short", "not text", "columns of another version", "words"]
)
def test_published_tables_that_cannot_be_read_are_one_line_at_the_end(plan, root, how):
    damage(root / "results" / "published" / "tables", how)
    [line] = beside_the_published(plan, root)
    assert line.startswith(
        f"Nothing is compared with the published runs: {root}/results/published/tables: missing, damaged"
    )
    assert "git checkout" in line


def test_a_published_protocol_that_cannot_be_read_is_one_line_at_the_end(plan, root):
    (root / "workflow" / "published.yaml").write_text("run: {seeds: [-1]}\n")
    [line] = beside_the_published(plan, root)
    assert line.startswith("Nothing is compared with the published runs: ")
    assert "published.yaml" in line
    assert "\n" not in line
