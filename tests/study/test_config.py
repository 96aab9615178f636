"""The configuration: accepted with the meaning given, or refused in one line that names the setting."""

import copy
import functools
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cpmlho.study.methods import METHODS
from cpmlho.study.protocol import ConfigError, RunKey, RunSpec, load, merge
from cpmlho.study.strict import parse

CONFIG = Path(__file__).parents[2] / "config.yaml"
MAPPING = yaml.safe_load(CONFIG.read_text())


def nested(path, value):
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def refusal(overrides):
    with pytest.raises(ConfigError) as error:
        load([CONFIG], overrides)
    message = str(error.value)
    assert "\n" not in message
    assert message.partition(": ")[0] in ("--config", str(CONFIG), f"{CONFIG} + --config")
    return message


BAD = [
    ("foo", 1, "foo: unknown setting"),
    ("run.seed", [0], "run.seed: unknown setting"),
    ("methods.cpmlho.theta_", 1.0, "methods.cpmlho.theta_: unknown setting"),
    ("datasets.mnist.network.depth", 3, "datasets.mnist.network.depth: unknown setting"),
    ("datasets.mnist.epochs", 0, "datasets.mnist.epochs: Input should be greater than 0, got 0"),
    ("datasets.mnist.epochs", "7", "datasets.mnist.epochs"),
    ("datasets.mnist.epochs", True, "datasets.mnist.epochs"),
    ("datasets.mnist.hyperparameters.dropout0.start", 1.2, "low < start < high must hold, got 0.0, 1.2, 0.95"),
    ("datasets.mnist.hyperparameters.dropout0.high", 1.2, "dropout0.high must be at most 0.99, got 1.2"),
    (
        "datasets.mnist.hyperparameters.cutout_holes",
        {"low": 0.0, "high": 5.0, "start": 1.0},
        "mlp network has no cutout_holes",
    ),
    ("datasets.mnist.hyperparameters.dropout9", {"low": 0.0, "high": 0.5, "start": 0.1}, "dropout9"),
    ("datasets.mnist.network.hidden_units", 0, "network.hidden_units: must be a number of at least 1, got 0"),
    ("datasets.mnist.std", 0.0, "datasets.mnist.std"),
    ("datasets.mnist.sha256.labels", "0" * 64, "must name exactly the files"),
    ("run.seeds", [], "run.seeds: List should have at least 1 item"),
    ("run.seeds", [1, 1], "run.seeds: 1 is listed twice"),
    ("run.seeds", [-1], "run.seeds.0"),
    ("run.methods", ["grid_search"], "run.methods.0"),
    ("run.datasets", ["cifar"], "run.datasets: unknown dataset cifar; known: mnist, fashionmnist"),
    ("run.variants", ["stn", "stn"], "run.variants: stn is listed twice"),
    ("run.variants", ["nothing"], "run.variants: unknown variant nothing"),
    ("variants.mine", {"base": "sgd"}, "variants.mine.base"),
    ("variants.mine", {"base": "cpmlho", "settings": {"thet": 1.0}}, "variants.mine: thet: unknown setting"),
    ("variants.mine", {"base": "cpmlho", "settings": {"theta": -1.0}}, "variants.mine: theta"),
    ("variants.mine", {"base": "cpmlho", "start": {"dropout0": 0.96}}, "variants.mine"),
    ("variants.mine", {"base": "cpmlho", "start": {"cutout_length": 4.0}}, "cutout_length is not tuned on MNIST"),
    ("variants.mine", {"base": "cpmlho", "datasets": ["cifar"]}, "variants.mine.datasets: unknown dataset cifar"),
    ("variants.mine", {"base": "cpmlho", "epochs": 0}, "variants.mine.epochs"),
    ("variants.mine", {"base": "fixed", "settings": {"values_of": "adam"}}, "mine: values_of: unknown method adam"),
    ("variants.mine", {"base": "fixed", "settings": {"values_of": "fixed"}}, "mine: values_of: fixed tunes nothing"),
    (
        "variants.mine",
        {"base": "fixed", "settings": {"values_of": "cpmlho_values"}},
        "mine: values_of: cpmlho_values tunes nothing",
    ),
    ("methods.fixed.values_of", "fixed", "fixed: values_of: fixed tunes nothing"),
    ("variants.cpmlho", {"base": "delta_stn"}, "variants.cpmlho: a variant cannot have a method's name"),
    ("methods.cpmlho.theta", "large", "methods.cpmlho.theta"),
    ("methods.cpmlho.theta", float("inf"), "methods.cpmlho.theta"),
    ("methods.cpmlho.g", "l3", "methods.cpmlho.g"),
    ("methods.random_search.trials", 2.5, "methods.random_search.trials"),
    ("data.valid_fraction", 1.0, "data.valid_fraction"),
    ("data.sources", ["ftp"], "data.sources.0"),
    ("device", "tpu", "device"),
    ("precision", 16, "precision"),
    ("training", None, "training"),
    ("datasets", [], "datasets"),
]


@pytest.mark.parametrize(("path", "value", "says"), BAD)
def test_a_mistake_is_one_line_that_names_it(path, value, says):
    assert says in refusal(nested(path, value))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"run: [1, 2", "line 1: not valid YAML"),
        (b"run:\n\tseeds: 1", "line 2: not valid YAML"),
        (b"note: a\nnote: b", "line 2: not valid YAML: note is given twice"),
        (b"- 1", "must be a mapping of settings, got list"),
        (b"", "must be a mapping of settings, got NoneType"),
        (b"note: \xff", "is not UTF-8"),
        (b"? [1, 2]\n: 3", ""),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, text, says):
    path = tmp_path / "bad.yaml"
    path.write_bytes(text)
    with pytest.raises(ConfigError) as error:
        load([CONFIG, path])
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: No such file"):
        load([CONFIG, tmp_path / "absent.yaml"])


def leaves(mapping, path=()):
    for key, value in mapping.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


LEAVES = list(leaves({k: v for k, v in MAPPING.items() if k not in ("run", "variants")}))
WRONG = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)


@settings(max_examples=100)
@given(st.sampled_from(LEAVES), WRONG)
def test_any_change_is_taken_as_given_or_refused_by_name(leaf, value):
    path, _ = leaf
    try:
        found = load([CONFIG], nested(".".join(path), value)).model_dump()
    except ConfigError as refused:
        message = str(refused)
    else:
        message = None
        for part in path:
            found = found[part]
    if message is None:
        assert found == value
        assert isinstance(value, bool) == isinstance(found, bool)
    else:
        assert "\n" not in message
        assert path[0] in message or path[-1] in message


@given(st.lists(st.sampled_from([path for path, _ in LEAVES]), min_size=1, max_size=3), st.text("abc_", min_size=1))
def test_an_unknown_key_is_refused_at_any_depth(paths, name):
    path = (*paths[0][:-1], f"{name}_unknown")
    with pytest.raises(ConfigError) as error:
        load([CONFIG], nested(".".join(path), 1))
    assert path[0] in str(error.value)


RUN = st.fixed_dictionaries(
    {},
    optional={
        "seeds": st.lists(st.integers(-1, 3) | st.just(1.0), max_size=3),
        "methods": st.lists(st.sampled_from([*METHODS, "sgd"]), max_size=3),
        "datasets": st.lists(st.sampled_from(["mnist", "fashionmnist", "cifar"]), max_size=2),
        "variants": st.lists(st.sampled_from(["stn", "cpmlho_cuts_only", "none"]), max_size=2),
    },
)


@settings(max_examples=100)
@given(RUN)
def test_any_selection_is_run_as_given_or_refused_by_name(run):
    try:
        protocol = load([CONFIG], {"run": run})
    except ConfigError as refused:
        message = str(refused)
        assert "\n" not in message
        assert "run." in message
        return
    assert protocol.run.model_dump() == MAPPING["run"] | run
    keys = list(protocol.keys())
    assert len(keys) == len(set(keys))
    datasets = {name: protocol.variants[name].datasets or protocol.run.datasets for name in protocol.run.variants}
    variants = {name for name in protocol.run.variants if set(datasets[name]) & set(protocol.run.datasets)}
    assert {key.method for key in keys} == {*protocol.run.methods, *variants}
    assert {key.dataset for key in keys} == set(protocol.run.datasets)


@pytest.mark.parametrize("path", [path for path, _ in LEAVES], ids=".".join)
def test_a_missing_setting_is_named(path, tmp_path):
    changed = copy.deepcopy(MAPPING)
    *parents, name = path
    functools.reduce(dict.__getitem__, parents, changed).pop(name)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(changed))
    if name in ("plugins", "output_units", "split") or parents[:1] in (["methods"], ["training"]):  # they have defaults
        load([tmp_path / "config.yaml"])
        return
    with pytest.raises(ConfigError) as error:
        load([tmp_path / "config.yaml"])
    assert ".".join(parents if "sha256" in parents else path) in str(error.value)
    assert "\n" not in str(error.value)


def test_defaults_are_the_calibrated_protocol():
    protocol = load([CONFIG])
    assert protocol.run.seeds == [0, 1, 2]
    assert (protocol.datasets["mnist"].epochs, protocol.datasets["fashionmnist"].epochs) == (7, 6)
    assert protocol.methods["random_search"].trials == protocol.methods["bayesian_optimization"].trials == 4
    assert (protocol.training.batch_size, protocol.training.learning_rate) == (128, 0.01)
    assert len(list(protocol.keys())) == 2 * 4 * 3 + 4 * 3


@pytest.mark.parametrize(
    ("first", "second", "overrides", "blamed"),
    [
        ("note: 3", "run: {seeds: [1]}", {}, "a.yaml"),
        ("run: {seeds: [1]}", "note: 3", {}, "b.yaml"),
        ("note: x", "note: 3", {}, "b.yaml"),
        ("note: x", "note: y", {"note": 3}, "--config"),
        ("note: 3", "run: {seeds: [1]}", {"device": "cpu"}, "a.yaml"),
        ("{}", "variants: {cpmlho_theta_0.1: {base: cpmlho, settings: {theta: -1.0}}}", {}, "b.yaml"),
        ("{}", "{}", {"run": {"datasets": ["cifar"]}}, "--config"),
    ],
)
def test_a_mistake_is_blamed_on_what_it_stands_in(tmp_path, first, second, overrides, blamed):
    (tmp_path / "a.yaml").write_text(first)
    (tmp_path / "b.yaml").write_text(second)
    with pytest.raises(ConfigError) as error:
        load([CONFIG, tmp_path / "a.yaml", tmp_path / "b.yaml"], overrides)
    assert str(error.value).partition(": ")[0].removeprefix(f"{tmp_path}/") == blamed


@pytest.mark.parametrize("setting", ["results_dir", "data.dir", "data.folder"])
def test_a_home_directory_is_expanded_in_paths(setting, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    value = load([CONFIG], nested(setting, "~/out")).model_dump()
    for part in setting.split("."):
        value = value[part]
    assert value == "/home/somebody/out"
    assert refusal(nested(setting, "~no-such-person/out")).endswith("there is no such home directory")


def test_a_home_directory_in_the_tracking_store_is_refused():
    assert refusal(nested("tracking.uri", "sqlite:///~/mlflow.db")).endswith("write the whole path")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"note": "a\udcff"}, r"--config: note: holds a character that cannot be written: 'a\udcff'"),
        ({"data": {"dir": "a\0b"}}, r"--config: data.dir: holds a character that cannot be written: 'a\x00b'"),
        (
            {"run": {"variants": ["\udcff"]}},
            r"--config: run.variants: holds a character that cannot be written: '\udcff'",
        ),
        ({"methods": {"cpmlho": 3}}, "--config: methods.cpmlho: must be a mapping of settings, got 3"),
        ({"methods": {"cpmlho": False}}, "--config: methods.cpmlho: must be a mapping of settings, got False"),
    ],
)
def test_what_no_file_can_hold_or_is_no_mapping_is_refused(overrides, says):
    assert refusal(overrides) == says


def test_merging_is_by_key_and_lists_are_replaced():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merge(base, {"a": {"c": [9]}, "e": 4}) == {"a": {"b": 1, "c": [9]}, "d": 3, "e": 4}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    base = {"network": {"kind": "mlp", "hidden_units": 3}}
    assert merge(base, {"network": {"kind": "mlp", "x": 1}}) == {"network": {"kind": "mlp", "hidden_units": 3, "x": 1}}
    assert merge(base, {"network": {"kind": "own", "width": 3}}) == {"network": {"kind": "own", "width": 3}}


def test_a_specification_holds_what_decides_the_run_and_nothing_else():
    protocol = load([CONFIG])
    key = RunKey("mnist", "delta_stn", 1)
    spec = protocol.resolve(key)
    assert parse(RunSpec, spec.model_dump_json(), "--spec") == spec
    for path, value, changes in (
        ("methods.cpmlho.theta", 2.0, False),
        ("datasets.fashionmnist.epochs", 2, False),
        ("run.seeds", [1, 5], False),
        ("note", "x", False),
        ("tracking.uri", "sqlite:///x.db", False),
        ("datasets.mnist.package", None, False),
        ("methods.delta_stn.train_steps", 3, True),
        ("datasets.mnist.epochs", 2, True),
        ("precision", "bfloat16", True),
        ("training.learning_rate", 0.1, True),
    ):
        assert (load([CONFIG], nested(path, value)).resolve(key) != spec) == changes, path


def test_a_variant_changes_what_it_names():
    protocol = load([CONFIG])
    variant = protocol.resolve(RunKey("mnist", "cpmlho_dropout0_0.8", 0))
    base = protocol.resolve(RunKey("mnist", "cpmlho", 0))
    assert variant.changes == {"start": {"dropout0": 0.8}}
    assert variant.data.hyperparameters["dropout0"].start == 0.8
    assert variant.data.hyperparameters["dropout1"] == base.data.hyperparameters["dropout1"]
    assert variant.settings == base.settings
    wide = load([CONFIG], nested("variants.wide", {"base": "cpmlho", "network": {"output_units": 1200}}))
    assert wide.resolve(RunKey("mnist", "wide", 0)).data.network.output_units == 1200


def test_a_variant_may_name_its_datasets_and_seeds():
    overlay = {
        "run": {"methods": ["cpmlho"], "variants": ["cpmlho_cuts_only", "cpmlho_dropout0_0.1"]},
        "variants": {"cpmlho_dropout0_0.1": {"seeds": [7]}},
    }
    keys = [key for key in load([CONFIG], overlay).keys() if key.method != "cpmlho"]  # noqa: SIM118
    cuts = [RunKey(dataset, "cpmlho_cuts_only", seed) for dataset in ("mnist", "fashionmnist") for seed in (0, 1, 2)]
    assert sorted(keys) == sorted([*cuts, RunKey("mnist", "cpmlho_dropout0_0.1", 7)])


def test_unknown_names_of_a_run():
    protocol = load([CONFIG])
    with pytest.raises(ConfigError, match="unknown dataset cifar; known: mnist, fashionmnist"):
        protocol.resolve(RunKey("cifar", "cpmlho", 0))
    with pytest.raises(ConfigError, match="unknown method sgd; known: random_search"):
        protocol.resolve(RunKey("mnist", "sgd", 0))


GRID = {"axes": {"network": {"one": {"base": "cpmlho"}}}}


@pytest.mark.parametrize(
    "clash",
    [
        {"variants": {"g_one": {"base": "stn"}}, "grids": {"g": GRID}},
        {
            "grids": {
                "g": {"axes": {"network": {"one_two": {"base": "stn"}}}},
                "g_one": {"axes": {"n": {"two": {"base": "stn"}}}},
            }
        },
    ],
    ids=["with a variant", "of two grids"],
)
def test_a_grid_takes_no_name_that_is_taken(clash):
    assert re.search(r"grids\.\w+: there is a variant g_one\w* already", refusal(clash))


def test_a_mistake_in_a_grid_is_blamed_on_what_the_grid_stands_in(tmp_path):
    (tmp_path / "grid.yaml").write_text("grids: {g: {axes: {n: {one: {base: cpmlho, settings: {thet: 1}}}}}}")
    with pytest.raises(ConfigError, match=r"grid\.yaml: variants\.g_one: thet: unknown setting"):
        load([CONFIG, tmp_path / "grid.yaml"], {"note": "x"})


def test_a_protocol_with_grids_is_the_same_when_read_from_its_file(tmp_path):
    protocol = load([CONFIG], {"grids": {"g": GRID}})
    (tmp_path / "protocol.json").write_text(protocol.model_dump_json())
    again = load([tmp_path / "protocol.json"])
    assert list(again.keys()) == list(protocol.keys())
    assert again.variants == protocol.variants
