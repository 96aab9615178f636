"""Grids of variants: each combination once, under a name made of its choices."""

from itertools import product
from pathlib import Path

from cpmlho.study.protocol import RunKey, load

CONFIG = Path(__file__).parents[2] / "config.yaml"
AXES = {
    "network": {"centred": {"base": "cpmlho"}, "uncentred": {"base": "cpmlho_uncentred"}},
    "multiplier": {"fixed": {}, "adbo": {"settings": {"multiplier": "adbo", "mu_init": 2.0}}},
    "theta": {
        "small": {"settings": {"theta": 0.5}, "training": {"momentum": 0.9}},
        "large": {"settings": {"theta": 5.0, "mu_init": 3.0}, "split": "random", "seeds": [7]},
    },
}
GRID = {"datasets": ["mnist"], "seeds": [3, 4], "axes": AXES}


def protocol(**grids):
    return load([CONFIG], {"run": {"variants": []}, "grids": grids})


def test_each_combination_is_a_variant_once_and_is_run():
    made = protocol(g=GRID)
    names = [f"g_{a}_{b}_{c}" for a, b, c in product(*AXES.values())]
    assert [name for name in made.variants if name.startswith("g_")] == names
    assert made.run.variants == names
    for name, chosen in zip(names, product(*AXES.values()), strict=True):
        assert made.variants[name].choices == dict(zip(AXES, chosen, strict=True))
    runs = list(made.keys())
    keys = [key for key in runs if key.method.startswith("g_")]
    assert len(keys) == len(set(keys)) == 4 * 2 + 4 * 1  # two seeds of the grid, or the one of the choice
    assert {key.dataset for key in keys} == {"mnist"}
    assert {key.seed for key in keys if key.method.endswith("_large")} == {7}


def test_choices_are_merged_over_each_other_in_the_order_of_the_axes():
    made = protocol(g=GRID)
    spec = made.resolve(RunKey("mnist", "g_uncentred_adbo_large", 7))
    assert (spec.algorithm, spec.split, spec.training.momentum) == ("cpmlho_uncentred", "random", 0.0)
    settings = spec.settings
    assert (settings.multiplier, settings.mu_init, settings.theta) == ("adbo", 3.0, 5.0)  # the later axis's mu_init
    spec = made.resolve(RunKey("mnist", "g_centred_adbo_small", 3))
    assert (spec.algorithm, spec.split, spec.training.momentum) == ("cpmlho", "last", 0.9)
    assert (spec.settings.mu_init, spec.settings.theta) == (2.0, 0.5)
    assert AXES["multiplier"]["adbo"] == {"settings": {"multiplier": "adbo", "mu_init": 2.0}}  # no choice was changed


def test_a_grid_without_datasets_and_seeds_has_the_protocols():
    made = protocol(g={"axes": {"network": AXES["network"]}})
    runs = list(made.keys())
    keys = [key for key in runs if key.method.startswith("g_")]
    names = ("g_centred", "g_uncentred")
    assert set(keys) == {RunKey(d, n, s) for d in made.run.datasets for n in names for s in made.run.seeds}


def test_the_choices_of_a_grid_change_no_number():
    settings = {"base": "cpmlho", "settings": {"theta": 5.0}}
    made = load([CONFIG], {"variants": {"by_hand": settings}, "grids": {"g": {"axes": {"theta": {"five": settings}}}}})
    by_hand, of_grid = (made.resolve(RunKey("mnist", name, 0)) for name in ("by_hand", "g_five"))
    assert of_grid.changes == by_hand.changes == {"settings": {"theta": 5.0}}
    assert of_grid.model_copy(update={"method": "by_hand"}) == by_hand


def test_a_protocol_with_grids_is_the_same_when_read_from_its_file(tmp_path):
    made = protocol(g=GRID)
    (tmp_path / "protocol.json").write_text(made.model_dump_json())
    again = load([tmp_path / "protocol.json"])
    assert list(again.keys()) == list(made.keys())
    assert again.variants == made.variants


def test_the_specification_curve_has_its_specifications():
    made = load([CONFIG, CONFIG.parent / "workflow/multiverse.yaml"])
    of = {name: sum(key.startswith(f"{name}_") for key in made.variants) for name in ("reading", "satellite")}
    assert of == {"reading": 24, "satellite": 16}
