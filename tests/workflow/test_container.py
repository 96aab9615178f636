"""The image: what .dockerignore lets into it is enough for its command. No builder is needed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_command_of_the_image_plans_everything_from_the_files_of_the_image(tmp_path):
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            path = line[1:]
            copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / path, tmp_path / path)
    program, *options = json.loads((ROOT / "Containerfile").read_text().rpartition("CMD ")[2])
    scripts = Path(sys.executable).parent
    environment = {"HOME": str(tmp_path), "PATH": f"{scripts}:{os.defpath}", "PYTHONPATH": str(tmp_path / "src")}
    command = [scripts / program, "-n", "--quiet", "all", *options]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
