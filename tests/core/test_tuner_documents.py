"""The guide's code runs, the site builds without a warning, and the examples find what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
LOSSES = re.compile(r"(\S[\w ]*?) +validation loss (\S+), test loss (\S+), at ")


def run(*command, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_the_guides_code_runs_in_any_folder(tmp_path):
    blocks = BLOCK.findall((ROOT / "docs/library.md").read_text())
    assert len(blocks) >= 4
    program = tmp_path / "guide.py"
    program.write_text("\n".join(blocks))
    assert "'decay'" in run(sys.executable, str(program), folder=tmp_path).stdout
    whole = [
        line
        for line in blocks[0].splitlines()
        if line.strip() and not line.startswith(("import", "from", "x =", "y ="))
    ]
    assert len(whole) <= 16


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    done = run(
        *(sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)), folder=ROOT
    )
    assert done.stdout + done.stderr == ""
    reference = (tmp_path / "api/index.html").read_text()
    for name in ("load_state_dict", "LogUniform", "cutout", "steps_per_epoch"):
        assert name in reference


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "residual", "ridge", "transformer"])
def test_an_example_compares_with_random_search(name, tmp_path):
    out = run(sys.executable, "-W", "ignore", str(ROOT / f"examples/{name}.py"), folder=tmp_path).stdout
    found = {label.strip(): (float(valid), float(test)) for label, valid, test in LOSSES.findall(out)}
    assert {"tuned", "random search"} <= set(found)
    assert all(0 < loss < 2 for losses in found.values() for loss in losses)
    if name == "ridge":  # the tuned penalty loses little to the one that is known to be best
        assert found["tuned"][0] < 1.03 * found["known optimum"][0]
