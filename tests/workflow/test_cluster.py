"""The Slurm profile where there is no Slurm; `make test-cluster` runs it for real."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cpmlho.study.jobs import find_gpus, need_server
from cpmlho.study.protocol import ConfigError
from cpmlho.study.settings import Tracking

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "profiles/slurm"


def snakemake(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--profile", PROFILE, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, env=environment)


@pytest.mark.slow
def test_the_profile_plans_without_slurm(tmp_path):
    run = snakemake(tmp_path, "-n", "--quiet", "all", "--", "all")
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
def test_without_a_tracking_server_nothing_starts(tmp_path):
    run = snakemake(tmp_path, "all")
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith(
        "Error: MLFLOW_TRACKING_URI: jobs on other machines need a tracking server, got nothing;"
    )
    assert not (tmp_path / "results").exists()


def test_a_run_asks_for_time_and_memory_and_one_core():
    profile = yaml.safe_load((PROFILE / "config.yaml").read_text())
    assert set(profile["set-resources"]["run"]) == {"runtime", "mem_mb"}
    assert set(profile["default-resources"]) == {"runtime", "mem_mb"}
    assert profile["set-threads"] == {"run": 1}


@pytest.mark.parametrize("uri", ["", "postgresql://somebody:secret@host/db", "mlruns", "file:///mlruns"])
def test_a_store_that_is_no_server_is_refused_without_its_secrets(uri):
    with pytest.raises(ConfigError, match="need a tracking server") as error:
        need_server(Tracking(uri=None), {"MLFLOW_TRACKING_URI": uri})
    assert "secret" not in str(error.value)


def test_a_server_will_do():
    need_server(Tracking(uri=None), {"MLFLOW_TRACKING_URI": "http://somebody:secret@server:5000"})
    need_server(Tracking(uri="https://server"), {})


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("NoDevFiles", []),
        ("-1", []),
        ("", []),
        ("0,NoDevFiles,1", ["0"]),
        ("0, 3", ["0", "3"]),
        ("GPU-5c1d,MIG-9a-0/1/2", ["GPU-5c1d", "MIG-9a-0/1/2"]),
        ("gpu0", []),
    ],
)
def test_what_names_no_device_is_no_gpu(visible, expected):
    assert find_gpus("auto", {"CUDA_VISIBLE_DEVICES": visible}) == expected
