"""What the rules compute with, without Snakemake."""

import json
import os
import re
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from cpmlho.study.jobs import find_gpus, prepare
from cpmlho.study.protocol import ConfigError, RunKey, load
from cpmlho.study.results import data_file
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


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("overlay=mine.yaml", r"mine\.yaml line 2: not valid YAML: note is given twice"),
        ("overlay=also.yaml", r"also\.yaml: cannot be read: No such file or directory"),
        ("overlay={a: b}", r"--config overlay: must be a file, or a list of files such as .*"),
        ("run={seeds: [0, 1.5]}", r"--config: run\.seeds.*1\.5.*"),
        ("run={seeds: [0", r"--config run.*: not valid YAML: .*"),
    ],
)
def test_a_mistake_is_named_with_its_place_in_one_line(tmp_path, monkeypatch, entry, message):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("note: a\nnote: b\n")
    with pytest.raises(ConfigError) as error:
        read_protocol(CONFIG.parent, [], [entry])
    assert re.fullmatch(message, str(error.value))


def test_the_quick_protocol_runs_every_method_on_both_datasets():
    """In few runs, as it takes 90 seconds."""
    keys = [*load([CONFIG, CONFIG.parent / "workflow/quick.yaml"]).keys()]
    methods = ("random_search", "bayesian_optimization", "delta_stn", "cpmlho")
    assert set(product(("mnist", "fashionmnist"), methods)) < {(key.dataset, key.method) for key in keys}
    assert len(keys) == 9


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


def test_a_run_waits_for_its_data_and_for_the_run_whose_values_it_takes(tmp_path):
    made, key = plan(results_dir=str(tmp_path)), RunKey("mnist", "cpmlho_values", 0)
    source = key._replace(method="cpmlho")
    assert made.needs(source) == [f"{tmp_path}/data/mnist.json"]
    assert made.needs(key) == [f"{tmp_path}/data/mnist.json", f"{tmp_path}/runs/mnist/cpmlho/seed0/result.json"]


def test_data_are_there_if_record_and_files_are_the_configured_ones(small, tmp_path):
    made = Plan(small.model_copy(update={"results_dir": str(tmp_path)}))
    assert not made.provided("mnist")
    record = data_file(tmp_path, "mnist")
    record.parent.mkdir()
    for content, expected in (
        ({"sha256": small.datasets["mnist"].sha256}, True),
        ({"sha256": {}}, False),
        ([], False),
    ):
        record.write_text(json.dumps(content))
        assert made.provided("mnist") == expected
    record.write_text(json.dumps({"sha256": small.datasets["mnist"].sha256}))
    elsewhere = small.data.model_copy(update={"dir": str(tmp_path)})
    assert not Plan(made.protocol.model_copy(update={"data": elsewhere})).provided("mnist")


def test_what_is_reported_depends_on_the_content_of_runs_and_not_on_where_data_lie(tmp_path):
    made = plan(results_dir=str(tmp_path))
    before = made.made_from()
    assert plan(results_dir=str(tmp_path), data={"dir": "elsewhere", "timeout": 3}).made_from() == before
    assert plan(results_dir=str(tmp_path), note="another").made_from() != before
    result = Path(made.results[0])
    result.parent.mkdir(parents=True)
    result.write_text("one")
    one = made.made_from()
    assert one != before
    os.utime(result, (0, 0))
    assert made.made_from() == one
    result.write_text("two")
    assert made.made_from() != one


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0, 3", ["0", "3"]),
        ("GPU-5c1d,MIG-9a-0/1/2", ["GPU-5c1d", "MIG-9a-0/1/2"]),
        ("0,NoDevFiles,1", ["0"]),
        *((none, []) for none in ("-1", "", "NoDevFiles", "gpu0")),
    ],
)
def test_gpus_are_those_that_may_be_used(visible, expected):
    assert find_gpus("auto", {"CUDA_VISIBLE_DEVICES": visible}) == expected
    assert find_gpus("cpu", {"CUDA_VISIBLE_DEVICES": visible}) == []


def test_without_nvidia_smi_a_gpu_is_used_only_if_it_is_required():
    assert find_gpus("auto", {"PATH": "/nowhere"}) == []
    assert find_gpus("cuda", {"PATH": "/nowhere"}) == ["0"]


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 2), (3, 3), (4, 4), (7, 5), (16, 10)])
def test_trials_leave_the_fewest_idle(cores, expected):
    made = plan(cores, methods={"random_search": {"trials": 10}})
    assert made.threads(Wildcards(method="random_search")) == expected
    assert made.threads(Wildcards()) == 1
    assert plan(cores, ["0"]).threads(Wildcards(method="random_search")) == 1
