"""The README's examples and the documents' commands work, links lead somewhere, and each table has a caption."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cpmlho.study.protocol import load
from cpmlho.study.report.tables import TABLES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = [
    line.partition("#")[0].strip()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for commands in re.findall(r"```sh\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    for line in commands.splitlines()
]


def block(language):
    return re.search(rf"```{language}\n(.*?)```", README, re.DOTALL).group(1)


def test_the_example_of_a_changed_protocol_is_one():
    overlay = yaml.safe_load(block("yaml"))
    protocol = load([ROOT / "config.yaml"], overlay)
    assert protocol.run.seeds == overlay["run"]["seeds"]
    assert {*overlay["variants"]} <= {*protocol.variants}


def test_the_example_of_the_library_tunes_a_module():
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    data = TensorDataset(torch.randn(80, 20), torch.randint(2, (80,)))
    net = torch.nn.Sequential(torch.nn.Linear(20, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    given = {
        "net": net,
        "optimizer": torch.optim.SGD(net.parameters(), 0.1),
        "train_loader": DataLoader(data, 8),
        "valid_loader": DataLoader(data, 8),
        "valid_loss": lambda net, batch: torch.nn.functional.cross_entropy(net(batch[0]), batch[1]),
    }
    exec(block("python"), given)
    assert given["tuner"].values["decay"] != 1e-4


@pytest.mark.parametrize("path", re.findall(r"\]\(([^):]+)\)", README))
def test_what_it_links_to_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("table", TABLES)
def test_each_table_has_a_caption(table):
    assert (ROOT / f"workflow/report/{table}.rst").read_text(encoding="utf-8").strip()


@pytest.mark.slow
@pytest.mark.parametrize("command", [line for line in SHELL if "snakemake --cores" in line])
def test_the_documents_snakemake_commands_have_something_to_do(tmp_path, command):
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    (tmp_path / "more.yaml").write_text(block("yaml"))
    arguments = command.split()[1:]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "-s", str(ROOT / "Snakefile"), *arguments],
        cwd=tmp_path,
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing to be done" not in done.stdout + done.stderr
