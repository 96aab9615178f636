"""The Slurm profile where there is no Slurm; `make test-cluster` runs it for real."""

import pytest
import yaml

from cpmlho.study.command import COMMAND, begin, left_behind
from cpmlho.study.jobs import need_server
from cpmlho.study.protocol import ConfigError
from cpmlho.study.settings import Tracking
from runs import ROOT, snakemake

PROFILE = ROOT / "profiles/slurm"


@pytest.mark.slow
def test_the_profile_plans_without_slurm(tmp_path):
    run = snakemake("--profile", PROFILE, "-n", "--quiet", "all", "--", "all", folder=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
def test_without_a_tracking_server_nothing_starts(tmp_path):
    run = snakemake("--profile", PROFILE, "all", folder=tmp_path)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith(
        "Error: MLFLOW_TRACKING_URI: jobs on other machines need a tracking server, got nothing;"
    )
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_a_job_that_a_killed_command_left_in_the_queue_takes_no_result_away(tmp_path):
    jobs_own, since = {}, {}
    begin(tmp_path / "results", jobs_own)
    begin(tmp_path / "results", since)  # the command given again
    result = tmp_path / "results/runs/mnist/cpmlho/seed0/result.json"
    result.parent.mkdir(parents=True)
    result.write_text("finished")
    job = ["--target-jobs", "run:dataset=mnist,method=cpmlho,seed=0", "--allowed-rules", "run", "--mode", "remote"]
    run = snakemake(*job, "--force", "--nolock", "--cores", "1", folder=tmp_path, **jobs_own)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith("Error: results: this job belongs to a command that was killed")
    assert result.read_text() == "finished"


def test_only_the_jobs_of_the_last_command_may_touch_the_results(tmp_path):
    first, second = {}, {}
    assert not left_behind(tmp_path, {COMMAND: "of a command before there was any record"})
    begin(tmp_path, first)
    assert not left_behind(tmp_path, first)
    begin(tmp_path, second)
    assert left_behind(tmp_path, first)
    assert not left_behind(tmp_path, second)
    assert not left_behind(tmp_path, {})  # whoever calls Snakemake's jobs without its environment


def test_a_run_asks_for_time_memory_and_one_core_and_removes_nothing_if_it_dies():
    profile = yaml.safe_load((PROFILE / "config.yaml").read_text())
    assert set(profile["set-resources"]["run"]) == {"runtime", "mem_mb"}
    assert set(profile["default-resources"]) == {"runtime", "mem_mb"}
    assert profile["set-threads"] == {"run": 1}
    assert profile["keep-incomplete"]


@pytest.mark.parametrize("uri", ["", "postgresql://somebody:secret@host/db", "mlruns", "file:///mlruns"])
def test_a_store_that_is_no_server_is_refused_without_its_secrets(uri):
    with pytest.raises(ConfigError, match="need a tracking server") as error:
        need_server(Tracking(uri=None, networks=False), {"MLFLOW_TRACKING_URI": uri})
    assert "secret" not in str(error.value)


def test_a_server_will_do():
    need_server(Tracking(uri=None, networks=False), {"MLFLOW_TRACKING_URI": "http://somebody:secret@server:5000"})
    need_server(Tracking(uri="https://server", networks=False), {})
