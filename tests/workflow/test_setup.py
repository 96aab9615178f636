"""The three ways to the environment - Makefile, requirements.lock, environment.yml - say the same."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
PINS = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in LOCK}
EXTRAS = PROJECT["optional-dependencies"]
REQUIRED = [Requirement(line) for line in [*PROJECT["dependencies"], *EXTRAS["study"], *EXTRAS["dev"], *EXTRAS["docs"]]]


def make(*arguments, folder):
    """A make of its own, also where these tests themselves run under `make test`."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", *arguments]
    options = {"cwd": folder, "env": variables, "capture_output": True, "text": True, "timeout": 60}
    return subprocess.run(command, check=False, **options)


@pytest.fixture
def checkout(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_the_lock_is_exact_pins_each_once():
    assert [line for line in LOCK if not re.fullmatch(r"[A-Za-z0-9][\w.-]*==\d[\w.]*", line)] == []
    assert len(PINS) == len(LOCK)


@pytest.mark.parametrize("requirement", REQUIRED, ids=lambda requirement: requirement.name)
def test_a_requirement_is_pinned_in_its_range_and_installed_so(requirement):
    pin = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin)
    assert Version(metadata.version(requirement.name)).public == pin


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is Linux's")
def test_the_lock_is_complete():
    """What a pinned package needs is pinned, or pip would choose its version on the day."""
    missing = {
        f"{name} needs {requirement.name}"
        for name in PINS
        for requirement in map(Requirement, metadata.requires(name) or [])
        if (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
        and canonicalize_name(requirement.name) not in PINS
    }
    assert missing == set()


def test_every_pin_can_be_installed_on_the_oldest_python_that_is_allowed():
    """Debian 12's own is 3.11.2; pip says no more of a pin that wants 3.11.5 than that there is none."""
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    wants = {name: metadata.metadata(name).get("Requires-Python", "") for name in PINS}
    assert [f"{name} {want}" for name, want in wants.items() if not SpecifierSet(want).contains(oldest)] == []


def test_the_build_backend_is_pinned():
    """The Makefile builds without isolation, hence with what the lock installs."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    for requirement in map(Requirement, build["requires"]):
        assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_conda_installs_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *packages, through_pip = environment["dependencies"]
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert packages == ["python=3.11", "pip"]
    assert through_pip == {"pip": ["-r requirements.lock", "-e ."]}
    assert PROJECT["requires-python"] == ">=3.11"


def environment(folder):
    """What a finished set-up leaves in `folder`, as far as make looks at it."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (folder / ".venv" / "pyvenv.cfg").write_text(f"command = /usr/bin/python3 -m venv --clear {folder}/.venv\n")
    (folder / ".venv" / ".ready").touch()


def commands(target, folder):
    """What `make target` would do."""
    run = make("--dry-run", target, folder=folder)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_the_environment_is_set_up_once(checkout):
    assert any("requirements.lock" in line for line in commands("all", checkout))
    environment(checkout)
    assert not any("pip" in line for line in commands("all", checkout))


def test_an_environment_that_was_moved_or_copied_is_made_again(checkout, tmp_path_factory):
    environment(checkout)
    copied = tmp_path_factory.mktemp("copied") / "here"
    shutil.copytree(checkout, copied, symlinks=True)
    assert not any("pip" in line for line in commands("all", checkout))
    assert "python3 -m venv --clear .venv" in commands("all", copied)
    moved = checkout.rename(checkout.with_name("moved"))
    assert "python3 -m venv --clear .venv" in commands("all", moved)


def test_an_environment_without_its_interpreter_is_made_again(checkout):
    environment(checkout)
    (checkout / ".venv" / "bin" / "python").unlink()
    (checkout / ".venv" / "bin" / "python").symlink_to(checkout / "gone")
    assert "python3 -m venv --clear .venv" in commands("all", checkout)


def test_make_without_a_target_explains_every_target_and_does_nothing(checkout):
    said = make(folder=checkout)
    assert said.returncode == 0
    targets = {line.split()[1] for line in said.stdout.splitlines()}
    assert {"all", "quick", "paper", "published", "multiverse", "ui", "ui-published", "test", "lint"} < targets
    assert not (checkout / ".venv").exists()


def test_an_old_python_is_refused_in_one_line(checkout):
    old = checkout / "python3.10"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    refused = make(f"PYTHON={old}", "test", folder=checkout)
    assert refused.returncode != 0
    said, *rest = refused.stderr.splitlines()
    assert said == f"Error: {old} is not Python 3.11 or newer; name one that is: make PYTHON=/path/to/python3.11"
    assert all(line.startswith("make: ***") for line in rest)
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("home", [{}, {"HOME": "/proc/none"}])
def test_make_gives_a_user_without_home_and_name_both(home):
    command = ["make", "--no-print-directory", "--eval", "show: ; @echo $$LOGNAME; echo $$HOME", "show"]
    environment = {"PATH": os.environ["PATH"], **home}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    name, place = run.stdout.splitlines()
    assert name
    there = next(folder for folder in (Path(place), *Path(place).parents) if folder.exists())
    assert os.access(there, os.W_OK)
    assert place.startswith(str(ROOT))
