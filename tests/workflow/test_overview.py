"""What a person is told of a workflow: before, while it goes, and at its end."""

import logging
import re
from pathlib import Path

import pytest

from cpmlho.study import conclusion
from cpmlho.study.conclusion import beside_the_published, in_mlflow, places
from cpmlho.study.overview import Forecast, Overview, duration
from cpmlho.study.protocol import RunKey, load
from cpmlho.study.results import METRICS, ResultError
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


def test_the_time_left_scales_the_costs_by_the_measured_rate():
    forecast = Forecast(dict.fromkeys(KEYS, 10.0), parallel=2)
    assert forecast.left({}) == 0
    forecast.end(KEYS[0], 20.0)  # twice as long as expected
    assert (forecast.done, forecast.total) == (1, 4)
    assert forecast.left({KEYS[1]: 20.0, KEYS[2]: 0.0}) == pytest.approx((3 * 20 - 20) / 2)
    assert forecast.left({KEYS[1]: 30.0, KEYS[2]: 10.0}) == pytest.approx((3 * 20 - 20 - 10) / 2)  # one is about to end
    forecast.end(KEYS[1], 30.0)
    assert forecast.left({}) == pytest.approx((2 * 10) * (20 + 30) / 20 / 2)


def record(event=None, level=logging.INFO, message="", **fields):
    made = logging.LogRecord("snakemake", level, "", 0, message, None, None)
    made.__dict__.update(fields, **({"event": event} if event else {}))
    return made


def begins(job, seed):
    wildcards = {"dataset": "mnist", "method": "cpmlho", "seed": str(seed)}
    return record("job_info", jobid=job, rule_name="run", rule_msg="", wildcards=wildcards, threads=1)


def test_overall_progress_replaces_the_messages_about_jobs(plan, capsys):
    overview = Overview(plan)
    overview.begin(KEYS[:2])
    assert capsys.readouterr().err.startswith("2 runs to train (2 are done), about 1 MB of disk.")
    assert not overview.filter(begins(7, 0))
    assert not overview.filter(begins(8, 1))
    assert not overview.filter(record("job_finished", job_id=7))
    assert not overview.filter(record("progress"))
    assert not overview.filter(record("job_finished", job_id=8))
    assert capsys.readouterr().err == "1 of 2 runs, less than a minute left\n2 of 2 runs\n"
    assert overview.filter(record("error", logging.ERROR, "No space left"))
    assert overview.filter(record(None, logging.WARNING, "an output is missing"))


def test_the_end_is_the_same_if_nothing_is_to_be_done(plan, capsys):
    overview = Overview(plan, lambda: overview.end("the end"))
    assert overview.filter(record(None, logging.INFO, "Building DAG of jobs..."))
    assert not overview.filter(record(None, logging.INFO, "Nothing to be done (all is up to date)."))
    said = capsys.readouterr()
    assert said.err == "Nothing to be done (all is up to date).\n"
    assert said.out == "\nthe end\n"


STATUS = "CalledProcessError in file x, line 1:\nCommand 'python -m cpmlho run 2>&1 | tee -i {log}' {end}"


@pytest.mark.parametrize(
    ("text", "end", "reason"),
    [
        (
            "12:00:00  started\ncpmlho: error: the disk is full\n",
            "returned non-zero exit status 2.",
            "the disk is full",
        ),
        (
            "Traceback (most recent call last):\n  many\nValueError: no\n\n",
            "returned non-zero exit status 1.",
            "ValueError: no",
        ),
        (
            "12:00:00  epoch 3/7  val loss 0.5\n",
            "returned non-zero exit status 137.",
            "killed by SIGKILL, .*",
        ),
        ("12:00:00  epoch 3/7  val loss 0.5\n", "died with <Signals.SIGTERM: 15>.", "killed by SIGTERM"),
        ("12:00:00  epoch 3/7  val loss 0.5\n", "returned non-zero exit status 139.", "killed by SIGSEGV"),
        ("12:00:00  epoch 3/7  val loss 0.5\n", "returned non-zero exit status 3.", "ended with exit status 3"),
        ("12:00:00  epoch 3/7  val loss 0.5\n", "", "ended without an error message"),
    ],
)
def test_what_ended_a_job_is_said_once(plan, tmp_path, capsys, text, end, reason):
    log = tmp_path / "a log"
    log.write_text(text)
    overview = Overview(plan)
    overview.begin(KEYS)
    overview.filter(begins(7, 0))
    capsys.readouterr()
    if end:
        assert not overview.filter(record("error", logging.ERROR, STATUS.format(log=log, end=end)))
    assert not overview.filter(record("job_error", logging.ERROR, jobid=7, rule_name="run", log=[str(log)]))
    assert re.fullmatch(f"Error: mnist/cpmlho/seed0: {reason}\n", capsys.readouterr().err)
    assert overview.failures == [f"mnist/cpmlho/seed0: {log}"]
    overview.filter(begins(9, 0))  # tried again
    overview.filter(record("job_finished", job_id=9))
    assert capsys.readouterr().err.startswith("1 of 4 runs")


def test_a_job_that_ends_as_the_user_stops_the_command_is_no_failure(plan, tmp_path, capsys):
    overview = Overview(plan)
    overview.begin(KEYS)
    overview.filter(begins(7, 0))
    capsys.readouterr()
    overview.stop()
    assert not overview.filter(
        record("job_error", logging.ERROR, jobid=7, rule_name="run", log=[str(tmp_path / "log")])
    )
    assert not overview.filter(record("error", logging.ERROR, "Exiting because a job execution failed"))
    assert capsys.readouterr().err == ""
    assert overview.failures == []


def test_what_was_not_made_is_not_named(plan, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(ROOT)
    assert list(places(plan, {"data", "run", "tables"}, ROOT)) == [
        f"Tables:  {tmp_path}/tables",
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


@pytest.fixture
def published(monkeypatch):
    """Three published runs, and a page that says one sentence on each protocol."""
    losses = {key: dict.fromkeys(METRICS, 1.0 + key.seed) for key in KEYS[:3]}
    monkeypatch.setattr(conclusion, "_finals", lambda protocol: losses)
    monkeypatch.setattr(conclusion, "_verdicts", lambda protocol: f"1 inconclusive in {protocol.results_dir}.")
    return monkeypatch


@pytest.mark.parametrize(("loss", "says"), [(1.5, "they agree."), (4.0, "more than 1, they do not agree.")])
def test_the_end_compares_the_runs_and_verdicts_with_the_published_ones(plan, published, loss, says):
    published.setattr(conclusion, "_same_settings", lambda plan, theirs: {KEYS[0]: dict.fromkeys(METRICS, loss)})
    first, theirs, own = beside_the_published(plan, ROOT)
    assert first.startswith("1 of your 4 runs have the settings of a published one; the largest difference is ")
    assert f"{abs(loss - 1):.2g} of the seeds' standard deviation (mnist/cpmlho/seed0, " in first
    assert first.endswith(says)
    assert theirs == f"Published runs: 1 inconclusive in {ROOT / 'results/published'}."
    assert own == f"Your runs:      1 inconclusive in {plan.protocol.results_dir}."


@pytest.mark.parametrize("error", [ResultError("no runs.csv"), ValueError("words"), KeyError("final_val_loss")])
def test_published_tables_that_cannot_be_used_are_one_line_at_the_end(plan, published, error):
    def fail(protocol):
        raise error

    published.setattr(conclusion, "_finals", fail)
    [line] = beside_the_published(plan, ROOT)
    assert line.startswith("No comparison with the published runs: ")
    assert "git checkout" in line


def test_a_published_protocol_that_cannot_be_read_is_one_line_at_the_end(plan, tmp_path):
    (tmp_path / "workflow").mkdir()
    (tmp_path / "config.yaml").write_bytes((ROOT / "config.yaml").read_bytes())
    (tmp_path / "workflow" / "published.yaml").write_text("run: {seeds: [-1]}\n")
    [line] = beside_the_published(plan, tmp_path)
    assert line.startswith("No comparison with the published runs: ")
    assert "published.yaml" in line
    assert "\n" not in line


def test_runs_that_mlflow_lacks_are_counted_with_the_remedy(plan, monkeypatch):
    monkeypatch.setattr("cpmlho.study.tracking.untracked", lambda protocol, root: "")
    assert list(in_mlflow(plan)) == []
    monkeypatch.setattr(
        "cpmlho.study.tracking.untracked", lambda protocol, root: "2 of 4 finished runs are missing in MLflow"
    )
    [line] = in_mlflow(plan)
    assert line.startswith("2 of 4 finished runs are missing in MLflow; add them: ")
    assert f"-m cpmlho track --config {plan.file}" in line
