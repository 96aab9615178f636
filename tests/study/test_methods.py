"""The methods on the small real subset: bit-identical repeats, common random numbers, divergence."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from cpmlho.core.options import CPMLHO, Fixed
from cpmlho.study.data import DataError
from cpmlho.study.data import load as load_arrays
from cpmlho.study.events import WORST_LOSS
from cpmlho.study.harness.hardware import choose_precision
from cpmlho.study.harness.network import Network
from cpmlho.study.harness.run import execute
from cpmlho.study.methods import METHODS
from cpmlho.study.problem import budget_of, predictor, problem_of
from cpmlho.study.protocol import ConfigError, RunKey
from cpmlho.study.results import (
    HISTORY,
    HYPERPARAMETERS,
    NETWORK,
    PLANES,
    RESULT,
    TRIALS,
    Observer,
    read_result,
    read_rows,
    run_dir,
    with_values,
)
from cpmlho.study.trials import score
from runs import content

NAMES = ["random_search", "bayesian_optimization", "fixed", "stn", "delta_stn", "cpmlho", "cpmlho_uncentred"]


def setting(small, key, **changes):
    """Return the problem, the budget and the options of a run."""
    spec = small.resolve(key).model_copy(update=changes)
    problem = problem_of(spec, load_arrays(spec.data, spec.data_dir), torch.device("cpu"))
    return problem, budget_of(spec, torch.float32), spec.settings


RESPONSES = {
    "joint": ("stn", {"response": "stn_joint"}),
    "weights": ("delta_stn", {"response_start": "weights"}),
    "frozen": ("delta_stn", {"response_start": "weights", "response_weights": "frozen"}),
    "tied": ("delta_stn", {"response_weights": "tied", "warm_up_steps": 5}),
    "mean": ("stn", {"response_weights": "mean"}),
    "temperature": ("delta_stn", {"response": "temperature"}),
    "mixed_temperature": ("cpmlho", {"response": "temperature", "cutting_planes": False}),
}


def spec_of(small, dataset, name, seed=0):
    """Return the specification of a run of a method, or of an entry of `RESPONSES`, with a plane every ten steps."""
    method, options = RESPONSES.get(name, (name, {}))
    spec = small.resolve(RunKey(dataset, method, seed))
    if isinstance(spec.settings, CPMLHO):
        options = {"cut_steps": 10, **options}
    return spec.model_copy(update={"settings": replace(spec.settings, **options)})


def test_the_methods_are_registered_in_order():
    assert list(METHODS) == NAMES


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("dataset", ["mnist", pytest.param("fashionmnist", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", [*NAMES, *RESPONSES])
def test_a_seed_decides_every_bit(small, tmp_path, dataset, method, precision):
    def run(seed, name):
        spec = spec_of(small, dataset, method, seed).model_copy(update={"precision": precision})
        execute(spec, tmp_path / name, [], print, 0.0)
        return content(tmp_path / name)

    first, again, other = run(0, "a"), run(0, "b"), run(1, "c")
    assert first == again
    assert first[0][HISTORY] != other[0][HISTORY]


def off(small, **changes):
    """Return CPMLHO's settings with both of its parts off, and these changes."""
    both = {"cutting_planes": False, "mixed_level": False, "cut_steps": None}  # if planes are on, one per epoch
    return replace(small.methods["cpmlho"], **{**both, **changes})


@pytest.mark.parametrize("dataset", ["mnist", pytest.param("fashionmnist", marks=pytest.mark.slow)])
def test_cpmlho_with_both_parts_off_is_delta_stn(small, tmp_path, dataset):
    spec = small.resolve(RunKey(dataset, "delta_stn", 0))
    execute(spec, tmp_path / "delta", [], print, 0.0)
    execute(spec.model_copy(update={"algorithm": "cpmlho", "settings": off(small)}), tmp_path / "off", [], print, 0.0)
    assert content(tmp_path / "delta")[0] == content(tmp_path / "off")[0]


@pytest.mark.parametrize("part", [{"cutting_planes": True, "mu_init": 1.0}, {"mixed_level": True}])
def test_each_part_of_cpmlho_acts_alone(small, tmp_path, part):
    spec = small.resolve(RunKey("mnist", "delta_stn", 0))
    for name, settings in (("off", off(small)), ("on", off(small, **part))):
        execute(spec.model_copy(update={"algorithm": "cpmlho", "settings": settings}), tmp_path / name, [], print, 0.0)
    on, without = content(tmp_path / "on")[0], content(tmp_path / "off")[0]
    assert on[HYPERPARAMETERS] != without[HYPERPARAMETERS]
    assert (PLANES in on) == ("cutting_planes" in part)


def test_until_the_first_plane_cutting_planes_change_nothing(small, tmp_path):
    spec = small.resolve(RunKey("mnist", "delta_stn", 0))  # two epochs
    runs = {}
    for period in (2, 3):
        settings = off(small, cutting_planes=True, cut_every=period, mu_init=1.0)
        execute(
            spec.model_copy(update={"algorithm": "cpmlho", "settings": settings}),
            tmp_path / str(period),
            [],
            print,
            0.0,
        )
        runs[period] = content(tmp_path / str(period))[0]
    execute(spec.model_copy(update={"algorithm": "cpmlho", "settings": off(small)}), tmp_path / "off", [], print, 0.0)
    without = content(tmp_path / "off")[0]
    assert runs[3] == without
    assert runs[2][HISTORY] == without[HISTORY]  # the only plane comes after the last step
    assert [(row["epoch"], row["plane"]) for row in read_rows(tmp_path / "2" / PLANES)] == [(2, 1)]


def test_methods_of_a_seed_share_initialisation_and_order(small, monkeypatch):
    started, batches = {}, {}
    for name in NAMES:
        problem, budget, options = setting(small, RunKey("mnist", name, 0))
        problem_type, seen = type(problem), batches.setdefault(name, [])
        make, loss = problem_type.module, problem_type.train_loss

        def module(self, init, name=name, make=make):
            made = make(self, init)
            started[name] = [p.detach().clone() for p in made.parameters()]
            return made

        def train_loss(self, net, batch, h, seen=seen, loss=loss):
            if not any(torch.equal(batch[0], each) for each in seen):
                seen.append(batch[0])
            return loss(self, net, batch, h)

        with monkeypatch.context() as patch:
            patch.setattr(problem_type, "module", module)
            patch.setattr(problem_type, "train_loss", train_loss)
            next(METHODS[name].train(problem, replace(budget, epochs=1), options))
    for name in NAMES:
        for ours, theirs in zip(started[name], started["fixed"], strict=True):
            assert torch.equal(ours, theirs)
        assert len(batches[name]) == 13
        assert all(torch.equal(a, b) for a, b in zip(batches[name], batches["fixed"], strict=True))


def test_split_is_the_same_for_all_seeds_and_whole(small):
    a, *_ = setting(small, RunKey("mnist", "cpmlho", 0))
    b, *_ = setting(small, RunKey("mnist", "cpmlho", 1))
    assert torch.equal(a.valid.images, b.valid.images)
    assert (len(a.train), len(a.valid), len(a.test)) == (1700, 300, 500)


def test_an_epoch_is_one_permutation_in_whole_batches(small):
    problem, budget, _ = setting(small, RunKey("mnist", "cpmlho", 0))
    batches = budget.batches(problem.train, torch.Generator().manual_seed(0))
    seen = torch.cat([next(batches)[0] for _ in range(budget.iterations(problem))]).flatten(1)
    assert len(seen) == 1700 // 128 * 128
    assert len(torch.unique(seen, dim=0)) == len(torch.unique(torch.cat([seen, seen]), dim=0))
    assert len(torch.unique(seen, dim=0)) > 0.99 * len(seen)  # no example appears twice, except equal images


def test_evaluation_is_the_mean_over_the_split(small):
    problem, budget, _ = setting(small, RunKey("fashionmnist", "delta_stn", 0))
    module = problem.module(budget.streams(problem).host("init"))
    metrics = problem.evaluate(predictor(module))
    assert module.training
    module.eval()
    for part, loss, accuracy in (
        (problem.valid, metrics.val_loss, metrics.val_acc),
        (problem.test, metrics.test_loss, metrics.test_acc),
    ):
        logits = module(part.images.float() / 255)
        assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, part.labels).item(), rel=1e-5)
        assert accuracy == (logits.argmax(1) == part.labels).double().mean().item()


def test_rows_of_a_gradient_run(small, tmp_path):
    spec = small.resolve(RunKey("mnist", "cpmlho", 0))
    settings = replace(spec.settings, cut_steps=None, max_planes=3)
    result = execute(spec.model_copy(update={"settings": settings}), tmp_path, [], print, 0.0)
    rows = read_rows(tmp_path / HYPERPARAMETERS)
    steps = 2 * (1700 // 128)
    assert [row["update"] for row in rows] == list(range(steps // 5 + 1))
    assert [row["step"] for row in rows] == [5 * i for i in range(steps // 5 + 1)]
    assert rows[0]["dropout0"] == pytest.approx(0.05)
    assert rows[-1] == {"update": steps // 5, "step": steps - steps % 5} | result.hyperparameters
    planes = read_rows(tmp_path / PLANES)
    assert [(row["epoch"], row["plane"]) for row in planes] == [(1, 1), (2, 1), (2, 2)]
    assert all(row["gradient_share"] > 0 for row in planes)
    history = read_rows(tmp_path / HISTORY)
    assert [(row["epoch"], row["step"]) for row in history] == [(1, 13), (2, 26)]
    assert result.final.val_loss == history[-1]["val_loss"]
    assert result.best.val_loss == min(row["val_loss"] for row in history)
    assert all(a["seconds"] < b["seconds"] for a, b in pairwise(history))
    assert read_result(tmp_path / RESULT) == result


@pytest.mark.parametrize("method", NAMES[:2])
def test_rows_of_a_search(small, tmp_path, method):
    spec = small.resolve(RunKey("mnist", method, 0))
    result = execute(spec, tmp_path, [], print, 0.0)
    trials = read_rows(tmp_path / TRIALS)
    best = min(trials, key=lambda row: row["val_loss"])
    assert [row["trial"] for row in trials] == [0, 1]
    assert result.final.val_loss == best["val_loss"]  # chosen by validation (R11)
    assert result.final.test_loss == best["test_loss"]
    assert {name: best[name] for name in result.hyperparameters} == result.hyperparameters
    assert result.steps == 2 * 26
    assert trials[0]["dropout0"] != trials[1]["dropout0"]
    assert all(0 <= row[f"dropout{i}"] <= 0.95 for row in trials for i in range(3))


@pytest.mark.parametrize("method", ["delta_stn", "cpmlho"])
def test_a_diverged_run_ends_with_its_history(small, tmp_path, method):
    spec = small.resolve(RunKey("mnist", method, 0))
    wild = spec.model_copy(update={"training": replace(spec.training, learning_rate=1e6)})
    result = execute(wild, tmp_path, [], print, 0.0)
    assert result.status == "diverged"
    assert len(read_rows(tmp_path / HISTORY)) == 1  # stopped at the first evaluation of two
    assert read_result(tmp_path / RESULT).status == "diverged"


def test_a_diverged_trial_counts_as_worst_and_the_search_goes_on(small, tmp_path):
    spec = small.resolve(RunKey("mnist", "bayesian_optimization", 0))
    wild = spec.model_copy(update={"training": replace(spec.training, learning_rate=1e6)})
    result = execute(wild, tmp_path, [], print, 0.0)
    assert [row["status"] for row in read_rows(tmp_path / TRIALS)] == ["diverged"] * 2
    assert result.status == "diverged"
    assert score(result.final) == WORST_LOSS


def test_observers_see_everything_in_order(small, tmp_path):
    seen = []

    class Watcher(Observer):
        def started(self, spec, tables):
            seen.append("started")

        def ticked(self, epoch):
            seen.append(f"tick {epoch}")

        def evaluated(self, tables, weights):
            seen.extend(sorted(tables))

        def finished(self, result, folder):
            assert (folder / RESULT).exists()
            seen.append("finished")

    execute(small.resolve(RunKey("mnist", "random_search", 0)), tmp_path, [Watcher()], print, 0.0)
    trial = [HISTORY, TRIALS]
    assert seen == ["started", "tick 1", "tick 2", *trial, "tick 3", "tick 4", *trial, "finished"]


def test_a_device_that_is_not_there_is_one_line(small, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spec = small.resolve(RunKey("mnist", "delta_stn", 0)).model_copy(update={"device": "cuda"})
    with pytest.raises(ConfigError, match="no GPU works"):
        execute(spec, tmp_path, [], print, 0.0)
    assert list(tmp_path.iterdir()) == []


def test_less_than_one_batch_is_refused(small):
    data = small.datasets["mnist"].model_copy(update={"examples": 149})
    with pytest.raises(DataError, match="127 training examples are less than a batch of 128"):
        setting(small, RunKey("mnist", "delta_stn", 0), data=data)
    data = data.model_copy(update={"examples": 150})
    problem, budget, _ = setting(small, RunKey("mnist", "delta_stn", 0), data=data)
    assert budget.iterations(problem) == 1


@pytest.mark.parametrize(
    ("wanted", "capabilities", "expected"),
    [
        ("auto", {"avx512_bf16": True}, "bfloat16"),
        ("auto", {"cpu_name": "Intel Xeon", "amx_bf16": True, "avx512_bf16": True}, "bfloat16"),
        ("auto", {"cpu_name": "Intel Xeon", "amx_bf16": False, "avx512_bf16": True}, "float32"),
        ("auto", {"avx512_f": True, "avx512_bf16": False}, "float32"),
        ("auto", {"neon": True}, "float32"),
        ("float32", {"avx512_bf16": True}, "float32"),
        ("bfloat16", {}, "bfloat16"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it_faster(wanted, capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision(wanted, torch.device("cpu")) == expected


def test_the_precision_that_auto_came_to_is_recorded(small, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    spec = small.resolve(RunKey("mnist", "delta_stn", 0))
    for name, precision in (("auto", "auto"), ("named", "bfloat16")):
        execute(spec.model_copy(update={"precision": precision}), tmp_path / name, [], print, 0.0)
    (auto_tables, auto), (named_tables, named) = content(tmp_path / "auto"), content(tmp_path / "named")
    assert auto_tables == named_tables
    assert auto["precision"] == named["precision"] == "bfloat16"
    assert auto["spec"]["precision"] == "auto"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_trials_side_by_side_on_a_gpu_are_those_one_after_another(small, tmp_path):
    spec = small.resolve(RunKey("mnist", "random_search", 0)).model_copy(update={"device": "cuda"})
    losses = {}
    for workers in (1, 2):
        execute(spec, tmp_path / str(workers), [], print, 0.0, workers)
        losses[workers] = [row["val_loss"] for row in read_rows(tmp_path / str(workers) / TRIALS)]
    assert losses[1] == pytest.approx(losses[2], rel=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", NAMES)
def test_a_gpu_gives_the_losses_of_the_processor(small, tmp_path, method):
    spec = small.resolve(RunKey("fashionmnist", method, 0))
    losses = []
    for device in ("cpu", "cuda"):
        result = execute(spec.model_copy(update={"device": device}), tmp_path / device, [], print, 0.0)
        losses.append(result.final.val_loss)
    assert losses[0] == pytest.approx(losses[1], rel=0.05)  # the noise comes from another generator


@pytest.mark.parametrize("dataset", ["mnist", pytest.param("fashionmnist", marks=pytest.mark.slow)])
def test_training_at_the_values_of_a_trial_is_that_trial(small, tmp_path, dataset):
    """Initialisation, order and masks are the same, so that runs differ only in their values."""
    key = RunKey(dataset, "random_search", 0)
    searched = execute(small.resolve(key), run_dir(tmp_path, key), [], print, 0.0)
    spec = small.resolve(RunKey(dataset, "fixed", 0))
    spec = spec.model_copy(update={"settings": Fixed(values_of="random_search")})
    fixed = execute(with_values(spec, tmp_path), tmp_path / "fixed", [], print, 0.0)
    assert fixed.hyperparameters == searched.hyperparameters
    assert fixed.final == searched.final
    assert len(read_rows(tmp_path / "fixed" / HISTORY)) == spec.data.epochs


@pytest.mark.parametrize("method", ["random_search", "bayesian_optimization", "fixed", "cpmlho", "cpmlho_uncentred"])
def test_the_network_that_is_kept_has_the_loss_that_the_run_is_judged_by(small, tmp_path, method):
    spec = small.resolve(RunKey("mnist", method, 0))
    result = execute(spec, tmp_path, [Network(tmp_path, True)], print, 0.0)
    named = torch.load(tmp_path / NETWORK, weights_only=True)
    problem = problem_of(spec, load_arrays(spec.data, spec.data_dir), torch.device("cpu"))
    module = problem.module(torch.Generator())
    module.load_state_dict(named)
    metrics = problem.evaluate(predictor(module))
    assert metrics.val_loss == pytest.approx(result.final.val_loss, rel=1e-5)
    execute(spec, tmp_path, [Network(tmp_path, False)], print, 0.0)
    assert not (tmp_path / NETWORK).exists()  # it would pass as this run's
