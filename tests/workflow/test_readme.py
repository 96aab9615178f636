"""What the README shows must run."""

import re
from pathlib import Path

import pytest
import yaml

from cpmlho.study.protocol import load

ROOT = Path(__file__).parents[2]


def block(language):
    return re.search(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)


def test_it_is_short_and_begins_with_its_commands():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.split()) < 900
    assert {"make paper", "make all", "make test"} <= {line[:10].strip() for line in readme.splitlines()[:15]}


def test_the_example_of_a_changed_protocol_is_one():
    overlay = yaml.safe_load(block("yaml"))
    protocol = load([ROOT / "config.yaml"], overlay)
    assert protocol.run.seeds == [0, 1, 2, 3, 4]
    assert protocol.variants["cpmlho_theta10"].settings == {"theta": 10.0}


@pytest.mark.parametrize(
    "path",
    re.findall(r"[`(]((?:src|docs|workflow|tests|examples)/[^`*{}() ]+)[`)]", (ROOT / "README.md").read_text()),
)
def test_the_files_that_it_names_exist(path):
    assert (ROOT / path).exists()
