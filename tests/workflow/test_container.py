"""The container and the pod, as far as they can be checked without a builder and a cluster."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = (ROOT / "Containerfile").read_text().splitlines()
COMMAND = json.loads(INSTRUCTIONS[-1].removeprefix("CMD "))
KEPT = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]


def test_the_linter_has_nothing_to_say():
    command = [Path(sys.executable).with_name("hadolint"), "Containerfile"]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert (run.returncode, run.stdout) == (0, "")


def test_the_environment_is_a_layer_that_the_code_does_not_touch():
    first, second = (i for i, line in enumerate(INSTRUCTIONS) if line.startswith("FROM "))
    copied = [line for line in INSTRUCTIONS[first:second] if line.startswith("COPY")]
    assert copied == ["COPY requirements.lock ./"]
    assert INSTRUCTIONS[-1].startswith("CMD")
    assert "USER 1000" in INSTRUCTIONS[second:]


def test_the_cpu_variant_leaves_out_what_is_for_a_gpu_alone():
    [pattern] = [re.search(r"grep -vE '(.*?)'", line)[1] for line in INSTRUCTIONS if "grep -vE" in line]
    pins = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    left_out = {pin.partition("==")[0] for pin in pins if re.match(pattern, pin)}
    assert {"torch", "torchvision", "triton", "cuda-toolkit", "nvidia-cudnn-cu13"} <= left_out
    assert all(re.match("torch|triton|cuda|nvidia", name) for name in left_out)


def test_all_that_the_workflow_reads_is_in_the_image():
    read = "Snakefile config.yaml workflow profiles src requirements.lock results/published/tables"
    assert set(read.split()) <= set(KEPT)
    assert all((ROOT / path).exists() for path in KEPT)


def test_the_project_is_installed_in_the_image_as_make_installs_it():
    """Its version stands in the metadata of an installed package alone."""
    [line] = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.endswith("-e .")]
    options = re.search("--no-deps.*", line)[0]
    assert any("pip install" in each and each.endswith(options) for each in INSTRUCTIONS)


@pytest.mark.slow
def test_the_images_command_plans_everything_from_the_images_files_alone(tmp_path):
    for path in KEPT:
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / path, tmp_path / path)
    scripts = Path(sys.executable).parent
    environment = {"HOME": str(tmp_path), "PATH": f"{scripts}:{os.defpath}", "PYTHONPATH": str(tmp_path / "src")}
    command = [scripts / COMMAND[0], "-n", "--quiet", "all", *COMMAND[1:]]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_pod_keeps_what_must_outlive_it_and_is_not_root():
    pod = yaml.safe_load((ROOT / "profiles/kubernetes/job.yaml").read_text())["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["command"] == COMMAND
    assert pod["securityContext"]["runAsUser"] == 1000
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {
        "/project/results",
        "/project/data",
        "/project/.snakemake",
    }
