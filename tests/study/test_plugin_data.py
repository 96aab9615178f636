"""Datasets and networks from files of a user's own: read, checked, pinned, in the digest, trained on."""

import csv
import gzip
import hashlib
import json
import os
import re
import shutil
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from cpmlho.study import plugins
from cpmlho.study.arrays import Arrays, DataError
from cpmlho.study.data import load as load_arrays
from cpmlho.study.harness.provenance import plugin_sha256
from cpmlho.study.harness.run import execute
from cpmlho.study.protocol import ConfigError, RunKey, load
from cpmlho.study.provision import as_run, provide
from cpmlho.study.reading import merge
from cpmlho.study.results import HISTORY, RESULT, TRIALS, ResultError, data_file, read_result, read_rows, run_dir
from runs import snakemake

pytestmark = pytest.mark.usefixtures("registered")

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/plugins"
DROPOUT = {"low": 0.0, "high": 0.9, "start": 0.1}
DIGITS = """
import numpy as np
from cpmlho.study.arrays import Arrays
from cpmlho.study.registry import dataset

@dataset(label="Mine")
def mine(folder):
    rng = np.random.default_rng(0)
    examples, labels = rng.normal(size=(120, 5)), rng.integers(0, 3, 120)
    return Arrays(examples[:100], labels[:100], examples[100:], labels[100:])
"""
NETWORK = """
from cpmlho.study.registry import NetworkOptions, network

@network(NetworkOptions, hyperparameters=lambda options: ("dropout0",), label="Line")
def line(inputs, output_units):
    from torch import nn
    from cpmlho import Dropout
    return nn.Sequential(Dropout("dropout0"), nn.Linear(inputs[0], output_units))
"""


def settings(files, name, **dataset):
    """An overlay with one dataset of a user's own, on a small protocol."""
    mine = {"epochs": 1, "mean": 0.0, "std": 1.0, "hyperparameters": {"dropout0": DROPOUT}, **dataset}
    return {
        "plugins": [str(file) for file in files],
        "results_dir": "results",
        "device": "cpu",
        "precision": "float32",
        "data": {"dir": "data"},
        "run": {"datasets": [name], "methods": ["delta_stn", "cpmlho"], "variants": [], "seeds": [0]},
        "training": {"batch_size": 20},
        "datasets": {name: mine},
    }


def protocol(text=DIGITS + NETWORK, network=None, **dataset):
    Path("own.py").write_text(text)
    network = network or {"kind": "line", "output_units": 3}
    return load([ROOT / "config.yaml"], settings(["own.py"], "mine", reader="mine", network=network, **dataset))


def run(read, dataset, method="cpmlho"):
    provide(read, dataset, lambda line: None)
    key = RunKey(dataset, method, 0)
    return execute(as_run(read.resolve(key), read.results_dir), run_dir("results", key), [], print, 0.0)


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4) for size in array.shape)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()))


@pytest.mark.slow
def test_kmnist_is_read_from_torchvisions_layout_and_pinned():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (140, 28, 28)), np.arange(140) % 10
    for part, kept in (("train", slice(100)), ("t10k", slice(100, None))):
        write_idx(Path(f"data/KMNIST/raw/{part}-images-idx3-ubyte.gz"), images[kept])
        write_idx(Path(f"data/KMNIST/raw/{part}-labels-idx1-ubyte.gz"), labels[kept])
    network = {"kind": "mlp", "hidden_units": 8, "output_units": 10}
    read = load([ROOT / "config.yaml"], settings([EXAMPLES / "kmnist.py"], "kmnist", reader="kmnist", network=network))
    arrays = load_arrays(read.datasets["kmnist"], "data")
    assert (arrays.train_images == images[:100]).all()
    assert (arrays.test_labels == labels[100:]).all()
    result = run(read, "kmnist")
    assert result.data_sha256 == {"arrays": arrays.sha256()}
    assert json.loads(data_file("results", "kmnist").read_text())["sha256"] == result.data_sha256
    images[3, 4, 5] ^= 1
    write_idx(Path("data/KMNIST/raw/train-images-idx3-ubyte.gz"), images[:100])
    spec = as_run(read.resolve(RunKey("kmnist", "cpmlho", 0)), "results")
    for act in (lambda: provide(read, "kmnist", print), lambda: load_arrays(spec.data, "data")):
        with pytest.raises(DataError, match=r"^KMNIST \(reader kmnist of .*\.py\): the arrays have SHA-256 .*pinned"):
            act()
    data_file("results", "kmnist").unlink()
    provide(read, "kmnist", print)


@pytest.mark.slow
def test_cifar10_is_read_from_its_binary_version_and_trains_a_residual_network():
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (6, 20, 3073)).astype(np.uint8)
    records[..., 0] %= 10
    folder = Path("data/CIFAR10/cifar-10-batches-bin")
    folder.mkdir(parents=True)
    for name, batch in zip(["test_batch", *(f"data_batch_{i}" for i in range(1, 6))], records, strict=True):
        (folder / f"{name}.bin").write_bytes(batch.tobytes())
    changes = settings(
        [EXAMPLES / "cifar10.py", EXAMPLES / "residual.py"],
        "cifar10",
        reader="cifar10",
        mean=[0.49, 0.48, 0.45],
        std=[0.25, 0.24, 0.26],
        network={"kind": "residual", "width": 4, "blocks": 1},
        hyperparameters={
            "dropout0": DROPOUT,
            "cutout_length": {"low": 2.0, "high": 24.0, "start": 4.0},
            "cutout_holes": {"low": 0.0, "high": 2.0, "start": 1.0},
        },
    )
    read = load([ROOT / "config.yaml"], changes)
    arrays = load_arrays(read.datasets["cifar10"], "data")
    assert arrays.train_images[20, 2, 31, 30] == records[2, 0, 3071]
    assert arrays.test_labels.tolist() == records[0, :, 0].tolist()
    result = run(read, "cifar10")
    assert result.status == "done"
    assert result.spec.data.network.options.width == 4


@pytest.mark.slow
def test_a_table_of_two_classes_is_learned():
    changes = settings(
        [EXAMPLES / "breast_cancer.py"],
        "breast_cancer",
        reader="breast_cancer",
        epochs=20,
        network={"kind": "mlp", "hidden_units": 16, "output_units": 2},
    )
    result = run(load([ROOT / "config.yaml"], changes), "breast_cancer", "delta_stn")
    assert result.final.test_acc > 0.85  # two in three are benign
    assert result.hyperparameters.keys() == {"dropout0"}
    assert result.environment["scikit-learn"] == version("scikit-learn")


@pytest.mark.slow
def test_examples_to_validate_on_may_be_given():
    text = DIGITS.replace("labels[100:])", "labels[100:], examples[:7], labels[:7])")
    read = protocol(text + NETWORK)
    from cpmlho.study.problem import parts

    arrays = load_arrays(read.datasets["mine"], "data")
    train, valid = parts(read.resolve(RunKey("mine", "cpmlho", 0)), arrays)
    assert (len(train[1]), len(valid[1])) == (100, 7)
    assert run(read, "mine").status == "done"


def test_bytes_are_scaled_and_other_numbers_are_not():
    import torch

    from cpmlho.study.problem import problem_of

    read = protocol(mean=[1.0, 0.0, 0.0, 0.0, 0.0], std=[2.0, 1.0, 1.0, 1.0, 1.0])
    spec = read.resolve(RunKey("mine", "cpmlho", 0))
    examples = np.arange(500).reshape(100, 5)
    labels = np.zeros(100, int)
    for dtype, scale in ((np.uint8, 255), (np.int16, 1), (np.float64, 1)):
        stored = (examples % 200).astype(dtype)
        part = problem_of(spec, Arrays(stored, labels, stored, labels), torch.device("cpu")).test
        expected = (stored / scale - np.array([1, 0, 0, 0, 0])) / np.array([2, 1, 1, 1, 1])
        for _ in range(2):  # what is stored stays as it is
            np.testing.assert_allclose(part.prepare(part.images).numpy(), expected, rtol=1e-5, atol=1e-6)


WRONG = [
    ("rng.integers(0, 3, 120)", "rng.integers(1, 4, 120)", "from 0 to 2 or network.output_units: 4, got 1 to 3"),
    ("rng.integers(0, 3, 120)", "rng.integers(0, 3, 120) - 1", r"labels must be from 0 to 2, got -1 to 1"),
    ("rng.integers(0, 3, 120)", "rng.uniform(0, 3, 120)", r"must be whole numbers .*, got float64 of shape \(100,\)$"),
    ("rng.integers(0, 3, 120)", "np.eye(3)[rng.integers(0, 3, 120)]", r"got float64 of shape \(100, 3\)"),
    ("rng.integers(0, 3, 120)", "rng.integers(0, 3, (120, 1))", r"got int64 of shape \(100, 1\)"),
    ("labels[:100], ", "labels[:99], ", "each example needs one label, got 100 training examples and 99 labels"),
    ("examples[100:], labels[100:]", "examples[:0], labels[:0]", "there are no test examples"),
    (
        "examples[100:]",
        "examples[100:, :4]",
        r"must be like the training examples, float64 of shape \(5,\), got .*\(4,\)",
    ),
    ("size=(120, 5)", "size=120", "training examples must be numbers of shape"),
    ("examples, labels =", "examples, labels = np.full((120, 5), np.nan), np.zeros(120, int) #", "500 values"),
    ("return Arrays(", "return (", "must return Arrays, got tuple"),
    ("rng = ", "1 / 0; rng = ", "ZeroDivisionError: division by zero"),
    ("rng = ", "(folder / 'a').read_bytes(); rng = ", "FileNotFoundError: .*data/Mine/a"),
]


@pytest.mark.parametrize(("old", "new", "says"), WRONG)
def test_data_that_cannot_be_trained_on_is_one_line_with_its_file(old, new, says):
    read = protocol(DIGITS.replace(old, new) + NETWORK)
    with pytest.raises(DataError, match=says) as error:
        provide(read, "mine", print)
    assert str(error.value).startswith("Mine (reader mine of own.py): ")
    assert "\n" not in str(error.value)
    assert not data_file("results", "mine").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"training": {"batch_size": 86}}, "mine: 85 training examples are less than a batch of 86"),
        ({"datasets": {"mine": {"mean": [1.0, 2.0]}}}, "mine: mean must be a number, or a list of 5, one for each"),
        ({"datasets": {"mine": {"network": {"kind": "cnn", "hidden_units": 0}}}}, r"cnn, on .*\(5,\): takes images"),
        ({"datasets": {"mine": {"examples": 101}}}, "examples must be at most 100"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_one_line(changes, says):
    Path("own.py").write_text(DIGITS + NETWORK)
    own = settings(["own.py"], "mine", reader="mine", network={"kind": "line", "output_units": 3})
    if "network" in changes.get("datasets", {}).get("mine", {}):
        own["datasets"]["mine"].pop("network")
    with pytest.raises(DataError, match=says):
        run(load([ROOT / "config.yaml"], merge(own, changes)), "mine")
    assert not run_dir("results", RunKey("mine", "cpmlho", 0)).exists()


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (
            {"network": {"kind": "lin"}},
            "datasets.mine.network.kind: unknown network lin; did you mean line? Known: mlp",
        ),
        ({"network": {"kind": "line", "output_units": 1}}, "network.output_units: must be a number of at least 2"),
        ({"network": {"kind": "line", "width": 1}}, "datasets.mine.network.width: unknown setting"),
        ({"network": {"kind": "mlp"}}, "datasets.mine.network.hidden_units: is missing"),
        (
            {"hyperparameters": {"dropout1": DROPOUT}},
            "datasets.mine.hyperparameters.dropout1: unknown hyperparameter of the line network",
        ),
        ({"mean": []}, "datasets.mine.mean: must be a number, or a list with one for each channel, got []"),
        ({"std": [1.0, 0.0]}, "datasets.mine.std: must be greater than 0, got [1.0, 0.0]"),
        ({"sha256": {"labels": "0" * 64}}, "datasets.mine: a dataset with a reader has no package"),
    ],
)
def test_wrong_settings_are_one_line(dataset, says):
    with pytest.raises(ConfigError) as error:
        protocol(**dataset)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_reader_is_one_line():
    with pytest.raises(ConfigError, match=r"datasets\.mine\.reader: unknown reader mine; known: none"):
        load([ROOT / "config.yaml"], settings([], "mine", reader="mine", network={"kind": "mlp", "hidden_units": 3}))


def test_a_damaged_record_is_one_line():
    read = protocol()
    data_file("results", "mine").parent.mkdir(parents=True)
    data_file("results", "mine").write_text("{")
    with pytest.raises(ResultError, match=r"results/data/mine\.json: damaged; remove it to pin"):
        provide(read, "mine", print)


def test_files_are_part_of_the_provenance_of_the_runs_that_use_them():
    Path("data.py").write_text(DIGITS)
    Path("net.py").write_text(NETWORK)
    mine = settings(["data.py", "net.py"], "mine", reader="mine", network={"kind": "line", "output_units": 3})
    of_mlp = {**mine["datasets"]["mine"], "network": {"kind": "mlp", "hidden_units": 4}}
    datasets = load(
        [ROOT / "config.yaml"], mine | {"datasets": {"mine": mine["datasets"]["mine"], "mixed": of_mlp}}
    ).datasets
    reader, network = (hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in ("data.py", "net.py"))
    assert plugin_sha256(datasets["mine"], "cpmlho") == {"network": network, "reader": reader}
    assert plugin_sha256(datasets["mixed"], "cpmlho") == {"reader": reader}
    assert plugin_sha256(datasets["mnist"], "cpmlho") == {}


@pytest.mark.slow
def test_a_run_by_hand_pins_its_dataset(cpmlho):
    Path("own.py").write_text(DIGITS + NETWORK)
    changes = settings(["own.py"], "mine", reader="mine", network={"kind": "line", "output_units": 3})
    Path("mine.json").write_text(json.dumps(changes))
    status, said = cpmlho("run", "mine", "delta_stn", 0, "--config", ROOT / "config.yaml", "--config", "mine.json")
    assert status == 0, said
    result = read_result(run_dir("results", RunKey("mine", "delta_stn", 0)) / RESULT)
    assert result.data_sha256 == json.loads(data_file("results", "mine").read_text())["sha256"]


@pytest.mark.slow
def test_the_documents_examples_run():
    text = (ROOT / "docs/plugins.md").read_text()
    python, overlays = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "yaml"))
    for name, block in zip(("halves", "rings", "bottleneck"), python, strict=True):
        Path(f"{name}.py").write_text(block)
    small = {"results_dir": "results", "device": "cpu", "precision": "float32", "data": {"dir": "data"}}
    Path("method.yaml").write_text(overlays[0])
    assert load([ROOT / "config.yaml", Path("method.yaml")]).resolve(RunKey("mnist", "halves", 0)).trials == 7
    files = []
    for i, overlay in enumerate(overlays[1:]):
        files.append(Path(f"{i}.yaml"))
        files[-1].write_text(overlay)
        results = []
        read = load([ROOT / "config.yaml", *files], small)
        for method in ("delta_stn", "cpmlho"):
            results.append(run(read, "rings", method))
            assert results[-1].status == "done"
        shutil.rmtree("results")
    assert results[-1].spec.data.network.kind == "bottleneck"


@pytest.mark.slow
def test_a_table_a_network_and_methods_through_the_whole_pipeline(tmp_path):
    """All of it, from files of a user's own; then again, and after an edit of the table's file."""
    shutil.copy(EXAMPLES / "breast_cancer.py", "table.py")
    Path("net.py").write_text(NETWORK)
    methods = [os.path.relpath(EXAMPLES / name) for name in ("successive_halving.py", "tpe.py")]
    network = {"kind": "line", "output_units": 2}
    own = settings(["table.py", "net.py", *methods], "breast_cancer", reader="breast_cancer", network=network)
    own["run"]["methods"] = ["successive_halving", "tpe"]
    own["methods"] = {"successive_halving": {"trials": 3}, "tpe": {"trials": 2, "initial_trials": 1}}
    own["training"]["batch_size"] = 24  # 16 training iterations
    Path("mine.yaml").write_text(json.dumps(own))
    workflow = partial(snakemake, "--cores=2", "--config", "overlay=mine.yaml", folder=tmp_path)
    done = workflow("--", "all")
    assert done.returncode == 0, done.stderr
    table = Path("results/tables/table1.md").read_text()
    assert "Breast cancer | Line |" in table
    assert "TPE: the best of 2 trials by validation loss." in table
    assert "SHA: the best of 3 trials by validation loss, which cost 2 such trainings together." in table
    assert "breast_cancer/tpe" in Path("results/report.html").read_text()
    rows = csv.DictReader(Path("results/tables/runs.csv").read_text().splitlines())
    assert {(row["dataset"], row["status"], row["stale"]) for row in rows} == {("breast_cancer", "done", "False")}

    plugins.load_plugins(own["plugins"])
    folder = run_dir("results", RunKey("breast_cancer", "successive_halving", 0))
    trials = read_rows(folder / TRIALS)
    assert [row["step"] for row in read_rows(folder / HISTORY)] == [8, 16, 24]  # two points, then the better one
    assert trials[2]["dropout0"] == min(trials[:2], key=lambda row: row["val_loss"])["dropout0"]
    assert read_result(folder / RESULT).final.val_loss == min(row["val_loss"] for row in trials)

    record = data_file("results", "breast_cancer").read_text()
    again = workflow("--dry-run", "--", "all")
    assert "Nothing to be done" in again.stdout + again.stderr
    text = Path("table.py").read_text()
    Path("table.py").write_text(text.replace("default_rng(0)", "default_rng(1)"))
    failed = workflow("--", "all")
    assert failed.returncode != 0
    assert "pinned" in failed.stdout + failed.stderr
    assert data_file("results", "breast_cancer").read_text() == record
