"""The figures: which a protocol makes, what they draw, and how; on made-up runs."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from test_multiverse import made as with_planes
from test_reporting import LOSSES, T, fill, load, one, table, text, write

from cpmlho.study.methods import METHODS
from cpmlho.study.protocol import Protocol, RunKey
from cpmlho.study.report import selection
from cpmlho.study.report.figures import FIGURES, KINDS, caption, drawing, made_by
from cpmlho.study.report.figures import load as load_figure
from cpmlho.study.report.figures.specification_curve import shown
from cpmlho.study.report.style import style_of
from cpmlho.study.report.write import study_of, write_figures, write_tables

READINGS = ["fixed", "delta_stn", "stn", "cpmlho", "cpmlho_uncentred"]


def drawn(protocol: Protocol, name: str) -> tuple[pd.DataFrame, Figure]:
    study, picture = study_of(protocol), load_figure(name)
    data = picture.data(study)
    with drawing.look():
        return data, picture.draw(study, data)


def of(folder: Path, methods: list[str], variants: dict[str, Any] | None = None, **more: Any) -> Protocol:
    run = {"datasets": ["mnist"], "methods": methods, "variants": [*(variants or {})], "seeds": [0, 1, 2]}
    return load(folder, run={**run, **more}, variants=variants or {})


def made(protocol: Protocol, method: str, losses: list[float], **more: Any) -> None:
    for seed, loss in enumerate(losses):
        write(protocol, RunKey("mnist", method, seed), loss, **more)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    """Everything ran; the tables are written."""
    protocol = fill(load(tmp_path_factory.mktemp("full"), note="MADE UP"))
    write_tables(protocol)
    write_figures(protocol)
    return protocol


@pytest.fixture(scope="module")
def holes(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    """Of MNIST, CPMLHO's seed 2 diverged and Delta-STN's seed 0 is missing."""
    protocol = fill(load(tmp_path_factory.mktemp("holes")), skip=(RunKey("mnist", "delta_stn", 0),))
    write(protocol, RunKey("mnist", "cpmlho", 2), math.nan, status="diverged")
    return protocol


# --- which are made -------------------------------------------------------------------------------------------------


def test_each_figure_of_a_protocol_is_made_and_has_something_to_draw(full: Protocol) -> None:
    assert made_by(full) == ["forest", "figure1", "figure2", "figure3"]
    folder = Path(full.results_dir, "figures")
    files = {f"{name}.{kind}" for name in made_by(full) for kind in KINDS}
    assert {path.name for path in folder.iterdir()} == {*files, "SHA256SUMS"}
    for name in made_by(full):
        assert table(full, f"figures/{name}.csv")
        assert "<!-- MADE UP -->" in text(full, f"figures/{name}.svg")
        assert len(caption(name)) > 100


def test_figures_of_an_earlier_protocol_are_removed_and_other_files_stay(tmp_path: Path) -> None:
    write_figures(tables_of(fill(load(tmp_path, run={"variants": []}))))
    folder = tmp_path / "figures"
    (folder / "mine.png").write_bytes(b"mine")
    assert (folder / "figure3.svg").is_file()
    write_figures(tables_of(load(tmp_path, run={"methods": ["delta_stn", "cpmlho"], "variants": []})))
    assert {path.stem for path in folder.iterdir()} == {"forest", "figure1", "mine", "SHA256SUMS"}


def tables_of(protocol: Protocol) -> Protocol:
    write_tables(protocol)
    return protocol


def test_a_protocol_that_no_figure_shows_makes_none_and_says_so(tmp_path: Path) -> None:
    protocol = fill(of(tmp_path, ["delta_stn"]))
    write_tables(protocol)
    assert write_figures(protocol).endswith("0 files, because the protocol has no runs that a figure shows")


def test_a_figure_whose_runs_have_not_finished_says_so(tmp_path: Path) -> None:
    protocol = load(tmp_path, run={"variants": []})
    write(protocol, RunKey("fashionmnist", "random_search", 0), 0.5)
    write_tables(protocol)
    write_figures(protocol)
    assert "None of the runs that this figure shows has finished." in text(protocol, "figures/figure1.svg")
    assert table(protocol, "figures/figure1.csv") == []
    assert "None of the runs" not in text(protocol, "figures/figure3.svg")


def test_a_protocol_without_runs_for_a_figure_does_not_make_it(tmp_path: Path) -> None:
    def names(*methods: str, **variants: Any) -> list[str]:
        return made_by(of(tmp_path, list(methods), variants))

    assert names("delta_stn", "stn") == []
    assert names("fixed", "random_search") == ["figure3"]
    assert names("cpmlho") == ["figure1"]
    rate = {"base": "stn", "training": {"learning_rate": 0.02}}
    assert names("stn", slow=rate) == ["step_size"]
    assert names("stn", slow={**rate, "training": {"momentum": 0.9}}) == []
    assert names("stn", late={"base": "cpmlho", "start": {"dropout0": 0.4}}) == ["figure2"]
    thetas = {
        f"theta_{theta}": {"base": "cpmlho", "settings": {"theta": theta}} for theta in (0.1, 0.3, 3.0, 5.0, 10.0)
    }
    assert names("delta_stn", **thetas) == []
    thetas["theta_9"] = {"base": "cpmlho", "settings": {"theta": 9.0}}
    assert names("delta_stn", **thetas) == ["specification_curve"]


@pytest.mark.parametrize("name", METHODS)
def test_colours_have_a_contrast_of_three_on_white(name: str) -> None:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(style_of(name).colour)]
    luminance = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    assert 1.05 / (luminance + 0.05) >= 3


def test_every_figure_of_the_registry_can_be_loaded() -> None:
    assert all(callable(load_figure(name).draw) for name in FIGURES)


# --- forest ---------------------------------------------------------------------------------------------------------


def test_the_forest_compares_each_reading_with_its_own_baseline_first_and_with_no_other_reading(tmp_path: Path) -> None:
    protocol = of(tmp_path, [*READINGS, "random_search"])
    for method, shift in {"fixed": 0.1, "delta_stn": 0.01, "stn": 0.02, "random_search": 0.2}.items():
        made(protocol, method, [loss + shift for loss in (0.3, 0.32, 0.31)])
    made(protocol, "cpmlho", [0.3, 0.32])
    write(protocol, RunKey("mnist", "cpmlho", 2), math.nan, status="diverged")
    made(protocol, "cpmlho_uncentred", [0.3, 0.32, 0.31])
    data, figure = drawn(protocol, "forest")
    pairs = list(zip(data["method"], data["other"], data["own"], strict=True))
    others = ["fixed", "random_search"]
    assert pairs == [
        *(("cpmlho", other, own) for other, own in [("delta_stn", True), *((name, False) for name in others)]),
        *(("cpmlho_uncentred", other, own) for other, own in [("stn", True), *((name, False) for name in others)]),
    ]
    assert list(data["mean"]) == pytest.approx([-0.01, -0.1, -0.2, -0.02, -0.1, -0.2])
    assert list(zip(data["n_seeds"], data["n_asked"], strict=True)) == [(2, 3)] * 3 + [(3, 3)] * 3
    assert list(data["paper"].dropna()) == pytest.approx([-0.002, -0.003, -0.002, -0.003])
    own, rest, *_ = figure.axes
    assert [axes.get_title() for axes in figure.axes[::2]] == ["MNIST: centred CPMLHO", "MNIST: uncentred CPMLHO"]
    assert [label.get_text() for label in own.get_yticklabels()] == ["− Δ-STN"]
    assert [label.get_text() for label in rest.get_yticklabels()] == ["− No tuning", "− RS"]
    assert [line.get_xdata()[0] for line in own.lines if line.get_marker() == "D"] == pytest.approx([-0.002])
    edges = own.collections[0].get_paths()[0].vertices[:, 0]
    assert [min(edges), max(edges)] == pytest.approx([-0.001, 0.001])  # half of the paper's effect
    assert [each.get_text() for each in own.texts] == ["n=2 of 3"]


def test_runs_on_a_part_of_the_examples_are_not_compared_with_the_paper(tmp_path: Path) -> None:
    run = {"datasets": ["mnist"], "methods": ["delta_stn", "cpmlho"], "variants": []}
    protocol = fill(load(tmp_path, run=run, datasets={"mnist": {"examples": 4000}}))
    data, figure = drawn(protocol, "forest")
    assert data["paper"].isna().all()
    assert not [line for line in figure.axes[0].lines if line.get_marker() == "D"]


# --- the paper's figures --------------------------------------------------------------------------------------------


def on_the_logit_scale(rates: list[float]) -> list[float]:
    """Mean of rates on the logit scale, and both ends of the interval there."""
    logits = [math.log(rate / (1 - rate)) for rate in rates]
    mean, half = statistics.fmean(logits), T[len(rates)] * statistics.stdev(logits) / math.sqrt(len(rates))
    return [1 / (1 + math.exp(-x)) for x in (mean, mean - half, mean + half)]


def test_figure1_has_mean_and_interval_on_the_logit_scale(full: Protocol, holes: Protocol) -> None:
    rows = table(full, "figures/figure1.csv")
    assert len(rows) == 2 * 3 * 6
    row = one(rows, method="delta_stn", hyperparameter="dropout1", update="3")
    seeds = [2 * loss / 8 for loss in LOSSES["delta_stn"]]
    assert [float(row[f"seed{seed}"]) for seed in range(3)] == pytest.approx(seeds)
    columns = ["mean", "ci_low", "ci_high", "n_seeds"]
    assert [float(row[c]) for c in columns] == pytest.approx([*on_the_logit_scale(seeds), 3])
    partial = drawn(holes, "figure1")[0].set_index(["method", "hyperparameter", "update"]).loc["cpmlho", "dropout0", 0]
    assert math.isnan(partial["seed2"])
    assert list(partial[columns]) == pytest.approx([*on_the_logit_scale([0.33 / 2, 0.2801 / 2]), 2])


def test_figure1_draws_what_its_data_say_on_equal_axes(holes: Protocol) -> None:
    data, figure = drawn(holes, "figure1")
    assert [axes.get_title() for axes in figure.axes] == ["Dropout0", "Dropout1", "Dropout2"]
    assert len({(axes.get_ylim(), axes.get_xlim()) for axes in figure.axes}) == 1
    for axes, parameter in zip(figure.axes, ("dropout0", "dropout1", "dropout2"), strict=True):
        for method, label in (("delta_stn", "Δ-STN (n=2/3, 1 missing)"), ("cpmlho", "CPMLHO (n=2/3, 1 diverged)")):
            rows = data[(data["method"] == method) & (data["hyperparameter"] == parameter)]
            (mean,) = [line for line in axes.lines if line.get_label() == label]
            assert list(mean.get_ydata()) == pytest.approx(list(rows["mean"]))
            faint = [line for line in axes.lines if line.get_alpha() and line.get_color() == style_of(method).colour]
            shown = {tuple(line.get_ydata()) for line in faint if not np.isnan(line.get_ydata()).any()}
            assert len(shown) == 2
        assert not axes.collections  # a band of two seeds shows nothing


def test_figure1_shows_the_papers_curves_in_a_row_of_their_own(tmp_path: Path) -> None:
    protocol = of(tmp_path, READINGS)
    for method in READINGS[1:]:
        made(protocol, method, [0.1, 0.2, 0.3])
    _, figure = drawn(protocol, "figure1")
    lines = [[line.get_label() for line in axes.lines if "n=3" in line.get_label()] for axes in figure.axes]
    assert lines == [["Δ-STN (n=3)", "CPMLHO (n=3)"]] * 3 + [["STN (n=3)", "CPMLHO, uncentred (n=3)"]] * 3
    marks = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert marks == [200, 40]  # 200 updates, and 200 training iterations


def test_figure2_takes_the_runs_that_change_only_dropout0s_start(tmp_path: Path) -> None:
    variants = {
        "late": {"base": "cpmlho", "datasets": ["mnist"], "start": {"dropout0": 0.4}},
        "other_parameter": {"base": "cpmlho", "start": {"dropout1": 0.4}},
        "two_parameters": {"base": "cpmlho", "start": {"dropout0": 0.3, "dropout1": 0.4}},
        "other_setting": {"base": "cpmlho", "start": {"dropout0": 0.6}, "settings": {"theta": 2.0}},
        "other_method": {"base": "delta_stn", "start": {"dropout0": 0.7}},
        "uncentred": {"base": "cpmlho_uncentred", "start": {"dropout0": 0.2}},
        "early": {"base": "cpmlho", "start": {"dropout0": 0.1}},
    }
    protocol = fill(of(tmp_path, ["cpmlho"], variants))
    data, _ = drawn(protocol, "figure2")
    found = data.drop_duplicates("method")[["reading", "method", "start"]].values.tolist()
    assert found == [["centred", "early", 0.1], ["centred", "late", 0.4], ["uncentred", "uncentred", 0.2]]


def test_figure2_draws_every_seed_and_where_it_ends_and_no_mean(holes: Protocol) -> None:
    write(holes, RunKey("mnist", "cpmlho_dropout0_0.1", 1), math.nan, status="diverged")
    data, figure = drawn(holes, "figure2")
    course, ends = figure.axes
    by_start = {start: own.filter(regex="^seed").dropna(axis=1) for start, own in data.groupby("start")}
    assert [own.shape[1] for own in by_start.values()] == [2, 3, 3, 3]
    courses = [own[seed].tolist() for own in by_start.values() for seed in own]
    assert [list(line.get_ydata()) for line in course.lines] == courses
    assert [y for line in ends.lines for y in line.get_ydata()] == [each[-1] for each in courses]
    assert [label.get_text() for label in ends.get_xticklabels()] == ["0.1", "0.2", "0.5", "0.8"]


@pytest.mark.parametrize("name", ["figure1", "figure2"])
def test_single_seeds_are_pixels_in_svg(full: Protocol, name: str) -> None:
    svg, axes = text(full, f"figures/{name}.svg"), drawn(full, name)[1].axes
    assert 0 < svg.count("<image") <= len(axes)
    assert len(svg) < 150_000


# --- step size and specifications -----------------------------------------------------------------------------------


def test_the_step_size_is_a_curve_through_the_rates_and_names_who_is_missing(tmp_path: Path) -> None:
    rates = {
        f"{method}_at_{rate}": {"base": method, "training": {"learning_rate": rate}}
        for method in ("stn", "cpmlho")
        for rate in (0.005, 0.02)
    }
    protocol = of(tmp_path, READINGS, rates)
    made(protocol, "delta_stn", [0.30, 0.31, 0.32], train_loss=0.2)
    made(protocol, "cpmlho", [0.30, 0.31, 0.32], train_loss=0.2)
    made(protocol, "stn", [0.20, 0.21, 0.22], train_loss=0.12)
    made(protocol, "stn_at_0.005", [0.31, 0.33, 0.32], train_loss=0.21)
    _, figure = drawn(protocol, "step_size")
    (axes,) = figure.axes
    (curve,) = (line for line in axes.lines if line.get_label() == "STN")
    assert curve.get_xydata() == pytest.approx(np.array([[0.01, 0.01], [-0.08, -0.10]]))
    low, high = axes.collections[0].get_segments()[0][:, 1]
    assert [low, high] == pytest.approx([0.01 - T[3] * 0.01 / 3**0.5, 0.01 + T[3] * 0.01 / 3**0.5])
    points = [(line.get_xdata()[0], line.get_marker()) for line in axes.lines if line.get_marker() not in ("None", "")]
    legend = [each.get_text() for each in figure.legends[0].get_texts()]
    assert legend == ["STN", "1/2 ×", "1 ×"]
    assert len({marker for _, marker in points}) == 2
    assert [each.get_text() for each in axes.texts] == ["Not shown: CPMLHO\n(fewer than two rates have finished)"]


def test_the_curve_is_sorted_by_the_own_baseline_in_a_column_for_each_network(tmp_path: Path) -> None:
    thetas = {f"theta_{theta}": {"base": "cpmlho", "settings": {"theta": theta}} for theta in (0.1, 3.0, 5.0, 10.0)}
    uncentred = {"theta_un": {"base": "cpmlho_uncentred", "settings": {"theta": 3.0}}}
    protocol = of(tmp_path, ["delta_stn", "stn", "cpmlho", "cpmlho_uncentred"], {**thetas, **uncentred})
    losses = {"delta_stn": 0.3, "stn": 0.2, "cpmlho": 0.3003, "cpmlho_uncentred": 0.21, "theta_un": 0.19}
    losses |= {"theta_0.1": 0.2998, "theta_3.0": 0.3001, "theta_5.0": 0.5}
    for method, loss in losses.items():
        with_planes(protocol, method, [loss, loss + 0.01], [10.0, 7.0] if method == "cpmlho" else [10.0, 9.0])
    write(protocol, RunKey("mnist", "theta_10.0", 0), math.nan, status="diverged")
    data, figure = drawn(protocol, "specification_curve")
    order = ["theta_0.1", "theta_3.0", "cpmlho", "theta_5.0", "theta_10.0", "theta_un", "cpmlho_uncentred"]
    assert list(data["specification"]) == order
    assert list(data["own_mean"].dropna()) == pytest.approx([-0.0002, 0.0001, 0.0003, 0.2, -0.01, 0.01])
    assert shown(data) == [("theta", value) for value in ("0.1", "1", "10", "3", "5")]
    above, right, *_ = figure.axes
    assert [axes.get_title() for axes in (above, right)] == ["MNIST\ncentred", "MNIST\nuncentred"]
    points = [line for line in above.lines if line.get_marker() == "o"]
    assert [line.get_ydata()[0] for line in points][:3] == pytest.approx([-0.0002, 0.0001, 0.0003])
    assert [line.get_markerfacecolor() == "white" for line in points][:3] == [True, True, False]  # g fell by a fifth
    assert [each.get_text() for each in above.texts] == ["+0.20"]  # far from all others
    assert above.get_ylim()[1] < 0.1
    assert [line.get_xdata()[0] for line in above.lines if line.get_marker() == "x"] == [4]


# --- where tuning matters -------------------------------------------------------------------------------------------

SIZES = {500: 0.3, 2000: 0.1, None: 0.001}  # what tuning gains, by number of training examples


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Protocol:
    """Methods on 2,000 training examples of MNIST, and variants of them named after other numbers."""
    resolve = Protocol.resolve

    def resolve_size(self: Protocol, key: RunKey) -> Any:
        spec = resolve(self, key)
        wanted = {"size500": (1000, 0.5), "sizeall": (None, 0.15)}.get(key.method.split("_")[0], (4000, 0.5))
        data = spec.data.model_copy(update={"examples": wanted[0], "epochs": 9})
        return spec.model_copy(update={"data": data, "valid_fraction": wanted[1]})

    monkeypatch.setattr(Protocol, "resolve", resolve_size)
    methods = ["fixed", "delta_stn", "cpmlho"]
    variants = {f"size{n}_{name}": {"base": name} for n in ("500", "all") for name in methods}
    faster = {"base": "cpmlho", "settings": {"response_learning_rate": 0.1}}
    return of(tmp_path, methods, {**variants, "cpmlho_faster": faster, "size500_cpmlho_faster": faster})


def test_when_tuning_pays_is_a_line_for_each_method_against_the_number_of_examples(small: Protocol) -> None:
    assert "tuning_pays" in made_by(small)
    prefixes = {500: "size500_", 2000: "", None: "sizeall_"}
    for size, gain in SIZES.items():
        made(small, f"{prefixes[size]}fixed", [0.5, 0.6, 0.7])
        made(small, f"{prefixes[size]}cpmlho", [0.5 - gain, 0.6 - gain, 0.7 - gain])
        made(small, f"{prefixes[size]}delta_stn", [0.5, 0.6, 0.71])
    made(small, "cpmlho_faster", [0.4, 0.5])
    data, figure = drawn(small, "tuning_pays")
    ours = data[data["line"] == "cpmlho"].sort_values("examples")
    assert list(ours["examples"])[:2] == [500, 2000]
    assert math.isnan(list(ours["examples"])[2])
    assert list(ours["mean"]) == pytest.approx([-0.3, -0.1, -0.001])
    assert list(data.loc[data["line"] == "delta_stn", "ci_high"]) == pytest.approx(
        [(0.01 + T[3] * statistics.stdev([0, 0, 0.01]) * 3**0.5) / 3] * 3
    )
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["500", "2,000", "all"]
    assert sorted(each.get_text() for each in axes.get_legend().get_texts()) == [
        "CPMLHO (n=3)",
        "cpmlho_faster (n=2)",
        "Δ-STN (n=3)",
    ]


def test_without_tuning_beside_them_sizes_are_no_figure(small: Protocol) -> None:
    left = [spec for spec in selection.specs(small) if spec.algorithm != "fixed"]
    assert selection.sizes(left) == []


OTHERS: dict[str, Any] = {
    "faster": {"base": "delta_stn", "label": "a faster response", "settings": {"response_learning_rate": 0.1}},
    "faster_values": {"base": "fixed", "settings": {"values_of": "faster"}},
    "longer": {"base": "delta_stn", "epochs": 9},  # another budget
    "chosen": {"base": "delta_stn", "seeds": [5], "settings": {"response_learning_rate": 0.3}},  # other seeds
}


def test_outcomes_show_each_method_with_the_values_that_it_found(tmp_path: Path) -> None:
    run = {"datasets": ["mnist"], "methods": ["fixed", "delta_stn"], "variants": [*OTHERS], "seeds": [0, 1, 2]}
    protocol = load(tmp_path, run=run, variants=OTHERS, data={"split": "random"})
    assert "outcomes" in made_by(protocol)
    for i, method in enumerate(["fixed", "delta_stn", "faster", "faster_values", "longer"]):
        made(protocol, method, [0.9 - 0.1 * i, 0.91 - 0.1 * i])  # the test loss is 0.1 more
    write(protocol, RunKey("mnist", "faster", 2), math.nan, status="diverged")
    _, figure = drawn(protocol, "outcomes")
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["a faster response (1 diverged)", "Δ-STN", "No tuning"]
    means = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "|"]
    assert means == pytest.approx([0.805, 0.705, 0.905, 1.005])


def test_the_papers_setting_has_no_figure_of_outcomes(tmp_path: Path) -> None:
    assert "outcomes" not in made_by(load(tmp_path))


def test_responses_show_the_means_along_a_run(tmp_path: Path) -> None:
    variants: dict[str, Any] = {
        "held": {"base": "delta_stn", "label": "R held", "settings": {"response_weights": "frozen"}},
        "planes": {"base": "cpmlho", "settings": {"mixed_level": False}},
        "faster": {"base": "delta_stn", "settings": {"response_learning_rate": 0.1}},  # no other response
    }
    run = {"datasets": ["mnist"], "methods": ["fixed", "delta_stn"], "variants": [*variants], "seeds": [0, 1]}
    protocol = load(tmp_path, run=run, variants=variants, data={"split": "random"})
    for method, loss in {"fixed": 0.9, "delta_stn": 0.8, "held": 0.5, "planes": 0.6, "faster": 0.7}.items():
        made(protocol, method, [loss, loss])
    data, figure = drawn(protocol, "responses")
    assert data[data["quantity"] == "val_loss"].groupby("method")["mean"].last().to_dict() == pytest.approx(
        {"delta_stn": 0.8, "held": 0.5, "planes": 0.6}
    )
    own = data[(data["quantity"] == "dropout1") & (data["method"] == "held")].set_index("step")["mean"]
    assert own[10] == pytest.approx(0.5 * 2 / 6)  # of update 2, as `write` makes it
    legend = figure.axes[-1].get_legend()
    assert [each.get_text() for each in legend.get_texts()] == ["R held (n=2)", "planes (n=2)", "Δ-STN (n=2)"]
