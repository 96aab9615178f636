"""The README's examples work and its links lead somewhere; each table has its caption for Snakemake's report."""

import re
from pathlib import Path

import pytest
import yaml

from cpmlho.study.protocol import load
from cpmlho.study.report.tables import TABLES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


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
