"""The configuration: settings are read as written, or refused in one line that names the path and the remedy."""

import copy
import functools
import multiprocessing
import os
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from cpmlho.core.options import Options, least
from cpmlho.study.files import check_folder
from cpmlho.study.methods import METHODS
from cpmlho.study.protocol import ConfigError, RunKey, RunSpec, load
from cpmlho.study.reading import merge, read_file
from cpmlho.study.strict import one_line, parse, read_options
from cpmlho.study.workflow import overrides

CONFIG = Path(__file__).parents[2] / "config.yaml"
MAPPING = yaml.safe_load(CONFIG.read_text())
DROPOUT = "{low: 0.0, high: 0.5, start: 0.1}"


def nested(path, value):
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def at(content, path):
    return functools.reduce(lambda part, name: part[name], path, content)


def refusal(*arguments):
    with pytest.raises(ConfigError) as error:
        load(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


MISTAKES = [  # one of each kind: an overlay; the path that the message names; what it says there
    # Unknown names
    ("resulst_dir: x", "resulst_dir", "did you mean results_dir?"),
    ("run: {foo: [0]}", "run.foo", "unknown setting; known: datasets, variant_datasets, methods, variants, seeds"),
    ("methods: {cpmhlo: {theta: 1.0}}", "methods.cpmhlo", "did you mean cpmlho?"),
    ("methods: {cpmlho: {theta_: 1.0}}", "methods.cpmlho.theta_", "did you mean theta?"),
    ("training: {learning_rat: 0.1}", "training.learning_rat", "did you mean learning_rate? Known: batch_size,"),
    ("datasets: {mnist: {network: {depth: 3}}}", "datasets.mnist.network.depth", "known: output_units, hidden_units"),
    ("datasets: {mnist: {network: {kind: mpl}}}", "datasets.mnist.network.kind", "did you mean mlp?"),
    (
        "datasets: {mnist: {hyperparameters: {dropuot0: %s}}}",
        "datasets.mnist.hyperparameters.dropuot0",
        "mean dropout0?",
    ),
    ("run: {datasets: [mnits]}", "run.datasets", "unknown dataset mnits; did you mean mnist? Known: mnist, fashion"),
    ("run: {methods: [grid_search]}", "run.methods.0", "unknown method grid_search; "),
    ("run: {variants: [cpmlho_cut_only]}", "run.variants", "did you mean cpmlho_cuts_only?"),
    (
        "hypotheses: [{id: a b, claim: c, method: cpmhlo, other: stn, expected: equal}]",
        "hypotheses.a b",
        "mean cpmlho?",
    ),
    ("variants: {x: {base: sgd}}", "variants.x.base", "unknown method sgd"),
    ("variants: {x: {base: cpmlho, settings: {thet: 1.0}}}", "variants.x.settings.thet", "did you mean theta?"),
    ("variants: {x: {base: cpmlho, settings: {algorithm: stn}}}", "variants.x.settings.algorithm", "unknown setting"),
    ("variants: {x: {base: cpmlho, training: {momentun: 0}}}", "variants.x.training.momentun", "mean momentum?"),
    ("variants: {x: {base: cpmlho, network: {depth: 3}}}", "variants.x.network.depth", "unknown setting"),
    ("variants: {x: {base: cpmlho, start: {cutout_length: 4.0}}}", "variants.x.start.cutout_length", "known: dropout0"),
    ("variants: {x: {base: cpmlho, datasets: [cifar]}}", "variants.x.datasets", "unknown dataset cifar"),
    ("variants: {x: {base: fixed, settings: {values_of: stm}}}", "variants.x.settings.values_of", "did you mean stn?"),
    # Types and bounds
    ("datasets: {mnist: {epochs: 0}}", "datasets.mnist.epochs", "must be greater than 0, got 0"),
    ("datasets: {mnist: {epochs: '7'}}", "datasets.mnist.epochs", "must be a valid integer, got '7'"),
    ("datasets: {mnist: {epochs: true}}", "datasets.mnist.epochs", "must be a valid integer, got True"),
    ("datasets: {mnist: {epochs: }}", "datasets.mnist.epochs", "must be a valid integer, got None"),
    ("datasets: {mnist: {std: 0.0}}", "datasets.mnist.std", "must be greater than 0, got 0.0"),
    ("datasets: {mnist: {sha256: {labels: x}}}", "datasets.mnist.sha256.labels", "got 'x'"),
    ("datasets: {mnist: {network: {hidden_units: 0}}}", "datasets.mnist.network.hidden_units", "at least 1, got 0"),
    ("methods: {cpmlho: {theta: large}}", "methods.cpmlho.theta", "must be a valid number, got 'large'"),
    ("methods: {cpmlho: {theta: .inf}}", "methods.cpmlho.theta", "must be a number of at least 0, got inf"),
    ("methods: {cpmlho: {g: l3}}", "methods.cpmlho.g", "must be 'l2', 'squared', 'l1' or 'mean_l1', got 'l3'"),
    ("methods: {cpmlho: {per_layer: no}}", "methods.cpmlho.per_layer", "must be a valid boolean, got 'no'"),
    ("methods: {random_search: {trials: 2.5}}", "methods.random_search.trials", "valid integer, got 2.5"),
    ("methods: {cpmlho: false}", "methods.cpmlho", "must be a mapping of settings, got False"),
    ("run: [1]", "run", "must be a mapping of settings, got [1]"),
    ("run: {seeds: 1}", "run.seeds", "must be a list, got 1"),
    ("run: {seeds: []}", "run.seeds", "at least 1 item"),
    ("run: {seeds: [1, 1]}", "run.seeds", "1 is listed twice"),
    ("run: {seeds: [010]}", "run.seeds.0", "must be a valid integer, got '010'"),
    ("data: {sources: [ftp]}", "data.sources.0", "'folder', 'torchvision' or 'registry', got 'ftp'"),
    # Settings that do not fit each other
    (
        "datasets: {mnist: {hyperparameters: {dropout0: {start: 1}}}}",
        "datasets.mnist.hyperparameters.dropout0",
        "low <",
    ),
    (
        "datasets: {mnist: {hyperparameters: {dropout0: {high: 1}}}}",
        "datasets.mnist.hyperparameters.dropout0.high",
        "must be at most 0.99, got 1.0",
    ),
    ("methods: {cpmlho: {multiplier: adbo, cut_steps: 5}}", "methods.cpmlho.cut_steps", "must not divide train_steps"),
    ("variants: {x: {base: cpmlho, start: {dropout0: 0.99}}}", "variants.x.start.dropout0", "low < start < high"),
    ("variants: {x: {base: fixed, settings: {values_of: x}}}", "variants.x.settings.values_of", "tunes nothing"),
    ("variants: {cpmlho: {base: delta_stn}}", "variants.cpmlho", "a variant cannot have a method's name"),
    ("methods: {fixed: {values_of: fixed}}", "methods.fixed.values_of", "fixed tunes nothing"),
    # Text
    ('note: "\\ud800"', "note", r"holds a character that cannot be written: '\ud800'"),
    ('data: {dir: "a\\0b"}', "data.dir", r"holds a character that cannot be written: 'a\x00b'"),
    ('run: {variants: ["\\ud800"]}', "run.variants.0", r"got '\ud800'"),
    ("results_dir: ~no-such-person/x", "results_dir", "there is no home directory of ~no-such-person/x"),
    ("tracking: {uri: 'sqlite:///~/mlflow.db'}", "tracking.uri", "write the whole path"),
    # Grids
    ("grids: {g: {axes: {}}}", "grids.g.axes", "at least 1 item"),
    ("grids: {g: {axis: {}}}", "grids.g.axis", "did you mean axes?"),
    (
        "grids: {g: {axes: {n: {one: {settings: {}}}}}}",
        "grids.g.axes",
        "one axis must set `base` in each of its choices",
    ),
    ("grids: {g: {axes: {n: {One: {base: stn}}}}}", "grids.g.axes.n.One", "should match pattern"),
    ("grids: {g: {axes: {n: {one: {base: sgd}}}}}", "variants.g_one.base", "unknown method sgd"),
    ("grids: {g: {axes: {n: {one: {base: stn, settings: {x: 1}}}}}}", "variants.g_one.settings.x", "unknown setting"),
    ("grids: {cpmlho: {axes: {n: {cuts_only: {base: stn}}}}}", "grids.cpmlho", "there is a variant cpmlho_cuts_only"),
]


@pytest.mark.parametrize(("text", "path", "says"), MISTAKES, ids=[path for _, path, _ in MISTAKES])
def test_a_mistake_is_one_line_with_its_file_its_path_and_the_remedy(tmp_path, text, path, says):
    overlay, other = tmp_path / "mine.yaml", tmp_path / "other.yaml"
    overlay.write_text(text.replace("%s", DROPOUT))
    other.write_text("tracking: {networks: true}")
    message = refusal([CONFIG, overlay, other], {"note": "x"} if "note" not in text else {})
    assert message.startswith(f"{overlay}: {path}: ")
    assert says in message.removeprefix(f"{overlay}: {path}: ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"run: [1, 2", " line 1: not valid YAML: "),
        (b"run:\n\tseeds: 1", " line 2: not valid YAML: "),
        (b"note: a\nnote: b", " line 2: not valid YAML: note is given twice"),
        (b"- 1", ": must be a mapping of settings, got [1]"),
        (b"note: \xff", ": byte 6 is not UTF-8; save the file as UTF-8"),
        (b"? [1, 2]\n: 3", " line 1: not valid YAML: "),
        (b"run: &a {x: *a}", " line 1: not valid YAML: "),
        (b"note: !!binary aGk=", " line 1: not valid YAML: "),
        (b"note: !!int x", ": not valid YAML: "),
        (b"[" * 5000, ": not valid YAML: "),
        (None, ": cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, text, says):
    path = tmp_path / "bad.yaml"
    if text is not None:
        path.write_bytes(text)
    assert refusal([CONFIG, path]).startswith(f"{path}{says}")


SCALARS = [
    *(("1e-2", 0.01), ("1.0E-4", 1e-4), (".5", 0.5), ("-3", -3), ("+2", 2), ("0", 0), ("[1, 2e1]", [1, 20.0])),
    *(("true", True), ("null", None), ("", None), ("{a: 1e3}", {"a": 1000.0}), ("'010'", "010")),
    *((text, text) for text in ("010", "-01", "1:30", "no", "on", "1_000", "0x10", "0b1", "2020-01-01", "1e", "a b")),
]


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[text for text, _ in SCALARS])
def test_a_value_is_the_same_in_a_file_and_in_config(tmp_path, text, value):
    """Snakemake's `--config NAME=VALUE` is read as the line `NAME: VALUE` of a file."""
    (tmp_path / "a.yaml").write_text(f"name: {text}")
    found = read_file(tmp_path / "a.yaml")["name"]
    assert (found, type(found)) == (value, type(value))
    assert overrides([f"name={text}"]) == ([], {"name": value})


def test_numbers_in_config_are_numbers_and_a_repeated_key_is_an_error():
    _, settings = overrides(["training={learning_rate: 1e-2}", "overlay=[]"])
    assert load([CONFIG], settings).training.learning_rate == 0.01
    for entry in ("training={momentum: 0, momentum: 1}", "training={momentum: 0"):
        with pytest.raises(ConfigError, match=r"^--config training line 1: not valid YAML: "):
            overrides([entry])


def test_an_empty_file_or_section_changes_nothing(tmp_path):
    mine, own = tmp_path / "mine.yaml", tmp_path / "mine.json"
    for text in ("", "# seeds: [1]\n", "---\n", "null", "{}", "run:\n  # seeds: [1]\nmethods:\n  cpmlho:\n"):
        mine.write_text(text)
        own.write_text(text if text in ("null", "{}") else " ")
        assert load([CONFIG, mine, own]) == load([CONFIG]), text


@dataclass(frozen=True, kw_only=True)
class Own(Options):
    rates: tuple[float, ...] = (0.1,)
    kind: Literal["a", "b"] = "a"
    steps: int = least(1)


def test_the_dataclass_of_a_plug_in_is_validated_as_it_is_declared():
    assert read_options(Own, {"steps": 2, "rates": [1, 0.2]}) == Own(steps=2, rates=(1.0, 0.2))
    for content, says in (
        ({}, "steps: is missing"),
        ({"steps": 0}, "steps: must be a number of at least 1, got 0"),
        ({"steps": 2.0}, "steps: must be a valid integer, got 2.0"),
        ({"steps": 1, "rates": 3}, "rates: must be a list, got 3"),
        ({"steps": 1, "kind": "c"}, "kind: must be 'a' or 'b', got 'c'"),
        ({"stepps": 1}, "stepps: unknown setting; did you mean steps? Known: rates, kind, steps"),
    ):
        with pytest.raises(ValidationError) as error:
            TypeAdapter(Annotated[Own, BeforeValidator(partial(read_options, Own))]).validate_python(content)
        assert one_line(error.value) == says


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    for name, text in (("a.yaml", "note: x"), ("a.json", '{"note": "x"}')):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert load([CONFIG, tmp_path / name]).note == "x"


@pytest.mark.parametrize(
    ("first", "second", "overrides", "blamed"),
    [
        ("note: 3", "run: {seeds: [1]}", {}, "a.yaml"),
        ("note: x", "note: 3", {}, "b.yaml"),
        ("note: x", "note: y", {"note": 3}, "--config"),
        ("methods: {cpmlho: {theta: -1}}", "methods: {cpmlho: {g: l1}}", {}, "a.yaml"),
        ("{}", "variants: {cpmlho_theta_0.1: {base: cpmlho, settings: {theta: -1.0}}}", {}, "b.yaml"),
        ("{}", "{}", {"run": {"datasets": ["cifar"]}}, "--config"),
        ("grids: {g: {axes: {n: {one: {base: cpmlho, settings: {thet: 1}}}}}}", "{}", {"note": "x"}, "a.yaml"),
    ],
)
def test_the_message_begins_with_the_source_of_the_mistake(tmp_path, first, second, overrides, blamed):
    (tmp_path / "a.yaml").write_text(first)
    (tmp_path / "b.yaml").write_text(second)
    message = refusal([CONFIG, tmp_path / "a.yaml", tmp_path / "b.yaml"], overrides)
    assert message.partition(": ")[0].removeprefix(f"{tmp_path}/") == blamed


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
        found = at(load([CONFIG], nested(".".join(path), value)).model_dump(), path)
    except ConfigError as refused:
        message = str(refused)
    else:
        assert found == value
        assert isinstance(value, bool) == isinstance(found, bool)
        return
    assert "\n" not in message
    assert path[0] in message or path[-1] in message


RUN = st.fixed_dictionaries(
    {},
    optional={
        "seeds": st.lists(st.integers(-1, 3) | st.just(1.0), max_size=3),
        "methods": st.lists(st.sampled_from([*METHODS, "sgd"]), max_size=3),
        "datasets": st.lists(st.sampled_from(["mnist", "fashionmnist", "cifar"]), max_size=2),
        "variant_datasets": st.lists(st.sampled_from(["mnist", "fashionmnist", "cifar"]), max_size=2),
        "variants": st.lists(st.sampled_from(["stn", "cpmlho_cuts_only", "only_fashion", "none"]), max_size=3),
    },
)


@settings(max_examples=100)
@given(RUN)
def test_any_selection_is_run_as_given_or_refused_by_name(run):
    try:
        protocol = load(
            [CONFIG], {"run": run, "variants": {"only_fashion": {"base": "stn", "datasets": ["fashionmnist"]}}}
        )
    except ConfigError as refused:
        message = str(refused)
        assert "\n" not in message
        assert "run." in message
        return
    assert protocol.run.model_dump() == {"variant_datasets": []} | MAPPING["run"] | run
    keys = list(protocol.keys())
    assert len(keys) == len(set(keys))
    expected = set(product(protocol.run.datasets, protocol.run.methods))
    for name in protocol.run.variants:
        own = protocol.variants[name].datasets
        asked = {*protocol.run.datasets, *protocol.run.variant_datasets} & {*own} if own else {*protocol.run.datasets}
        expected |= {(dataset, name) for dataset in asked}
    assert {(key.dataset, key.method) for key in keys} == expected


def test_a_setting_without_a_default_must_be_given(tmp_path):
    path = tmp_path / "config.yaml"
    for setting in ("results_dir", "run.seeds", "datasets.mnist.epochs", "datasets.mnist.network.hidden_units"):
        changed = copy.deepcopy(MAPPING)
        *parents, name = setting.split(".")
        at(changed, parents).pop(name)
        path.write_text(yaml.safe_dump(changed))
        assert refusal([path]).startswith(f"{path}: {setting}: is missing")


def test_a_home_directory_is_expanded_in_every_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    for setting in ("results_dir", "data.dir", "data.folder", "multiverse"):
        found = load([CONFIG], nested(setting, "~/out")).model_dump()
        assert at(found, setting.split(".")) == "/home/somebody/out"


def make(folder, kind):
    place = folder / "place"
    match kind:
        case "a link to nothing":
            place.symlink_to(folder / "nowhere")
        case "a link to itself":
            place.symlink_to(place)
        case "a file":
            place.write_text("")
        case "a folder without permission":
            place.mkdir(mode=0o500)
    return place


def checked(path):
    try:
        check_folder("results_dir", path, written=True)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("inside", ["", "deep/inside"])
@pytest.mark.parametrize("kind", ["a link to nothing", "a link to itself", "a file", "a folder without permission"])
def test_a_folder_that_cannot_be_used_is_one_line(tmp_path, kind, inside):
    assert checked(tmp_path / "absent" / inside) == ""
    place = make(tmp_path, kind)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and "pytest" in str(parent):
            parent.chmod(0o755)
    drop = (os.setuid, (65534,)) if os.geteuid() == 0 else (None, ())  # nothing is refused to root
    with multiprocessing.get_context("fork").Pool(1, *drop) as pool:
        message = pool.apply(checked, [place / inside])
    assert message.startswith(f"results_dir: {place} ")
    assert message.endswith(", or set another results_dir")
    assert "\n" not in message


@pytest.mark.parametrize("setting", ["results_dir", "data.dir", "data.folder", "multiverse"])
def test_every_folder_that_the_protocol_names_is_checked(tmp_path, setting):
    place = make(tmp_path, "a link to nothing")
    folders = {"results_dir": str(tmp_path), "data": {"dir": str(tmp_path)}}
    protocol = load([CONFIG], merge(folders, nested(setting, str(place))))
    with pytest.raises(ConfigError, match=rf"^{setting}: .*place is a link to .*nowhere, which cannot be reached; "):
        protocol.check_folders()
    load([CONFIG], merge(folders, nested(setting, str(tmp_path)))).check_folders()


def test_merging_is_by_key_and_lists_are_replaced():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merge(base, {"a": {"c": [9]}, "e": 4}) == {"a": {"b": 1, "c": [9]}, "d": 3, "e": 4}
    assert merge(base, {"a": None, "d": None}) == {"a": {"b": 1, "c": [1, 2]}, "d": None}
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
        ("datasets.mnist.package.version", None, False),
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
    with pytest.raises(ConfigError, match="unknown dataset mnits; did you mean mnist"):
        protocol.resolve(RunKey("mnits", "cpmlho", 0))
    with pytest.raises(ConfigError, match="unknown method cpmlho_value; did you mean cpmlho_values"):
        protocol.resolve(RunKey("mnist", "cpmlho_value", 0))
