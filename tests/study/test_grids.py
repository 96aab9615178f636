"""Grids of variants: each combination once, under a name made of its choices, or a refusal in one line."""

from itertools import product
from pathlib import Path

import pytest

from cpmlho.study.settings import Grid
from cpmlho.study.protocol import ConfigError, RunKey, load

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


def refusal(overrides):
    with pytest.raises(ConfigError) as error:
        load([CONFIG], overrides)
    message = str(error.value)
    assert "\n" not in message
    return message


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


def test_what_a_grid_does_not_say_is_the_protocols():
    made = protocol(g={"axes": {"network": AXES["network"]}})
    runs = list(made.keys())
    keys = [key for key in runs if key.method.startswith("g_")]
    names = ("g_centred", "g_uncentred")
    assert set(keys) == {RunKey(d, n, s) for d in made.run.datasets for n in names for s in made.run.seeds}


def test_a_grids_choices_decide_no_number():
    made = load([CONFIG], {"variants": {"by_hand": {"base": "cpmlho", "settings": {"theta": 5.0}}}, "grids": {
        "g": {"axes": {"theta": {"five": {"base": "cpmlho", "settings": {"theta": 5.0}}}}}
    }})  # fmt: skip
    by_hand, of_grid = (made.resolve(RunKey("mnist", name, 0)) for name in ("by_hand", "g_five"))
    assert of_grid.changes == by_hand.changes == {"settings": {"theta": 5.0}}
    assert of_grid.model_copy(update={"method": "by_hand"}) == by_hand


def grid(**choice):
    return {"grids": {"g": {"axes": {"network": {"one": {"base": "cpmlho", **choice}}}}}}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (grid(settings={"thet": 1.0}), "variants.g_one: thet: unknown setting"),
        (
            grid(settings={"multiplier": "adbo", "cut_steps": 5}),
            "variants.g_one: cut_steps: must not divide train_steps, 5, with adbo",
        ),
        (grid(settings={"theta": -1.0}), "variants.g_one: theta: must be a number of at least 0"),
        (grid(training={"momentun": 0.9}), "variants.g_one: training.momentun: unknown setting"),
        (grid(speed=1), "variants.g_one.speed: unknown setting"),
        (grid(base="sgd"), "variants.g_one.base: unknown method sgd"),
        (grid(datasets=["cifar"]), "variants.g_one.datasets: unknown dataset cifar"),
        ({"grids": {"g": {"axes": {}}}}, "grids.g.axes"),
        ({"grids": {"g": {"axes": {"network": {}}}}}, "grids.g.axes.network"),
        ({"grids": {"g": {"axis": {"network": {"one": {"base": "cpmlho"}}}}}}, "grids.g.ax"),
        ({"grids": {"g": {"axes": {"theta": {"one": {"settings": {}}}}}}}, "one axis must set `base`"),
        ({"grids": {"G g": {"axes": {"network": {"one": {"base": "cpmlho"}}}}}}, "grids"),
        ({"grids": {"g": {"axes": {"network": {"One!": {"base": "cpmlho"}}}}}}, "grids.g.axes.network"),
        ({"grids": [1]}, "grids"),
    ],
)
def test_a_grid_that_cannot_be_run_is_refused_in_one_line(overrides, says):
    assert says in refusal(overrides)


def test_a_mistake_in_a_grid_names_the_source_that_the_grid_stands_in():
    assert refusal(grid(settings={"thet": 1.0})).startswith("--config: ")


def test_a_grid_may_not_take_the_name_of_a_method():
    overrides = {"grids": {"delta": {"axes": {"network": {"stn": {"base": "cpmlho"}}}}}}
    assert "delta_stn: a variant cannot have a method's name" in refusal(overrides)


DECLARED = {"variants": {"g_one": {"base": "stn"}}, **grid(settings={"theta": 5.0})}
MADE_TWICE = {
    "grids": {
        "g": {"axes": {"network": {"one_two": {"base": "cpmlho"}}}},
        "g_one": {"axes": {"network": {"two": {"base": "stn"}}}},
    }
}


@pytest.mark.parametrize("clash", [DECLARED, MADE_TWICE], ids=["with a variant", "of two grids"])
def test_a_grid_may_not_take_the_name_of_another_variant(clash):
    """One of the two would run under the other's settings."""
    assert "g_one" in refusal(clash)


def test_nine_hundred_variants_are_read():
    axes = {
        "network": AXES["network"],
        "theta": {f"t{i}": {"settings": {"theta": float(i)}} for i in range(30)},
        "mu": {f"m{i}": {"settings": {"mu_init": 1.0 + i}} for i in range(15)},
    }
    made = protocol(g={"axes": axes, "datasets": ["mnist"], "seeds": [0]})
    names = [name for name in made.variants if name.startswith("g_")]
    assert len(names) == len(set(names)) == 900
    settings = made.resolve(RunKey("mnist", "g_uncentred_t29_m14", 0)).settings
    assert (settings.theta, settings.mu_init) == (29.0, 15.0)


def test_the_multiverse_has_its_specifications():
    made = load([CONFIG, CONFIG.parent / "workflow/multiverse.yaml"])
    of = {name: sum(key.startswith(f"{name}_") for key in made.variants) for name in ("reading", "satellite")}
    assert of == {"reading": 24, "satellite": 16}


def test_variants_are_made_without_reading_a_protocol():
    names = dict(Grid.model_validate(GRID).variants("g"))
    assert len(names) == 8
    assert names["g_centred_fixed_small"] == {
        "choices": {"network": "centred", "multiplier": "fixed", "theta": "small"},
        "base": "cpmlho",
        "settings": {"theta": 0.5},
        "training": {"momentum": 0.9},
        "datasets": ["mnist"],
        "seeds": [3, 4],
    }
