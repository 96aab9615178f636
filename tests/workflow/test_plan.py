"""What the rules compute with, without Snakemake."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from cpmlho.study.jobs import find_gpus, prepare
from cpmlho.study.protocol import ConfigError, load
from cpmlho.study.settings import Tracking
from cpmlho.study.workflow import Plan, overrides, read_protocol

CONFIG = Path(__file__).parents[2] / "config.yaml"
SECRET = "postgresql://somebody:s3cret@host/db?password=s3cret"


class Wildcards(NamedTuple):
    """A run, as Snakemake's wildcards name it."""

    dataset: str = "mnist"
    method: str = "cpmlho"
    seed: str = "0"


def plan(cores=1, gpus=(), **settings):
    return Plan(load([CONFIG], settings), cores, gpus)


def digests(made):
    """The parameters of one run of each method and variant."""
    methods = [*made.protocol.methods, *made.protocol.variants]
    runs = [Wildcards(method=method) for method in methods if "no_hidden" not in method]
    return {run.method: (made.decisive(run), made.code(run)) for run in runs}


def test_overlays_and_settings_are_told_apart():
    files, settings = overrides(["overlay=a.yaml", "overlay=[b.yaml, c.yaml]", "note=x", "run={seeds: [1]}"])
    assert files == [Path("a.yaml"), Path("b.yaml"), Path("c.yaml")]
    assert settings == {"note": "x", "run": {"seeds": [1]}}


@pytest.mark.parametrize("entries", [["note=a", "note=b"], ["note=["], ["overlay=3"], ["overlay="]])
def test_what_cannot_be_meant_is_refused(entries):
    with pytest.raises(ConfigError, match=r"^--config "):
        overrides(entries)


@pytest.mark.parametrize("results_dir", ["-out", "out{1}", "{dataset}"])
def test_results_lie_where_snakemake_and_the_shell_take_the_name_as_it_is(results_dir):
    with pytest.raises(ConfigError, match=f"^results_dir: must .*, got {re.escape(results_dir)}$"):
        read_protocol(CONFIG.parent, [], [f'results_dir="{results_dir}"'])


def test_an_overlay_may_lie_in_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert overrides(["overlay=~/mine.yaml"])[0] == [Path("/home/somebody/mine.yaml")]


def test_nothing_inherited_reaches_the_jobs():
    environment = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": "/another/checkout/src",
        "PYTHONWARNINGS": "error",
        "PYTHONINSPECT": "1",
        "OMP_NUM_THREADS": "64",
        "OMP_PROC_BIND": "close",
        "OMP_PLACES": "cores",
        "KMP_AFFINITY": "compact",
        "PATH": "/usr/bin",
        "MLFLOW_TRACKING_URI": "http://host",
    }
    prepare(environment, Path("/checkout/src"), Tracking(uri=None, networks=False))
    assert environment["MPLBACKEND"] == "agg"
    assert environment["PYTHONPATH"] == "/checkout/src"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["PATH"] == "/usr/bin"
    assert environment["MLFLOW_TRACKING_URI"] == "http://host"
    assert not {"PYTHONWARNINGS", "PYTHONINSPECT", "OMP_PROC_BIND", "OMP_PLACES", "KMP_AFFINITY"} & set(environment)


def test_a_password_is_in_nothing_that_is_written(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SECRET)
    for made in (plan(), plan(tracking={"uri": SECRET})):
        assert made.store == "postgresql://host/db"
        assert "s3cret" not in made.text
        assert made.file == plan().file


def test_the_jobs_read_the_protocol_that_was_planned(tmp_path):
    first, second = plan(results_dir=str(tmp_path)), plan(results_dir=str(tmp_path), note="another")
    first.write()
    assert load([Path(first.file)]) == first.protocol
    second.write()
    assert [str(path) for path in (tmp_path / "logs").iterdir()] == [second.file]


@pytest.mark.parametrize(
    ("change", "touched"),
    [
        ({"note": "x"}, set()),
        ({"results_dir": "x"}, set()),
        ({"data": {"dir": "x", "timeout": 3}}, set()),
        ({"run": {"seeds": [5]}}, set()),
        ({"tracking": {"uri": "sqlite:///x"}}, set()),
        ({"methods": {"random_search": {"trials": 3}}}, {"random_search"}),
        ({"methods": {"delta_stn": {"valid_steps": 2}}}, {"delta_stn"}),
    ],
)
def test_a_setting_touches_the_runs_that_it_decides(change, touched):
    before, after = digests(plan()), digests(plan(**change))
    changed = {method for method in before if before[method] != after[method]}
    based = {name for name, variant in plan().protocol.variants.items() if variant.base in touched}
    assert changed == (touched | based) & set(before)


def test_a_run_needs_the_one_whose_values_it_takes():
    assert plan().values(Wildcards(method="cpmlho_values")) == ["results/runs/mnist/cpmlho/seed0/result.json"]
    assert plan().values(Wildcards()) == []


def test_gpus_are_those_that_may_be_used():
    assert find_gpus("cpu", {"CUDA_VISIBLE_DEVICES": "0"}) == []
    assert find_gpus("auto", {"CUDA_VISIBLE_DEVICES": "GPU-5c1d, 7"}) == ["GPU-5c1d", "7"]
    assert find_gpus("auto", {"CUDA_VISIBLE_DEVICES": "-1"}) == []
    assert find_gpus("auto", {"PATH": "/nowhere"}) == []
    assert find_gpus("cuda", {"PATH": "/nowhere"}) == ["0"]


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 2), (3, 3), (4, 4), (7, 5), (16, 10)])
def test_trials_leave_the_fewest_idle(cores, expected):
    made = plan(cores, methods={"random_search": {"trials": 10}})
    assert made.threads(Wildcards(method="random_search")) == expected
    assert made.threads(Wildcards()) == 1
    assert plan(cores, ["0"]).threads(Wildcards(method="random_search")) == 1
