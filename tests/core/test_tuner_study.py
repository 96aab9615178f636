"""A Tuner around the study's two networks, against the study's own path, given the same draws, in float64."""

from collections import namedtuple
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cpmlho.core.alternating import Alternation
from cpmlho.core.problem import Batches, Conditions, Problem, Split
from cpmlho.core.space import Space
from torch import Tensor, nn

import cpmlho
from cpmlho.core.methods import CPMLHO, STN, DeltaSTN
from cpmlho.core.options import Training
from cpmlho.core.planes import CuttingPlanes
from cpmlho.core.response import Response
from cpmlho.core.streams import Streams
from cpmlho.study.networks import cnn, mlp

SEED, CYCLES = 3, 50
Range = namedtuple("Range", ["low", "high", "start"])
DROPOUT = {f"dropout{i}": Range(0.0, 0.95, 0.05) for i in range(3)}
CUTOUT = {"cutout_length": Range(2.0, 24.0, 4.0), "cutout_holes": Range(0.0, 5.0, 1.0)}
CONDITIONS = Conditions(Training(batch_size=8, learning_rate=0.05), epochs=1, seed=SEED, dtype=torch.float64)


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def space(ranges):
    bounds = torch.tensor(list(ranges.values())).T
    return Space(tuple(ranges), *bounds, {name: each.high for name, each in ranges.items()})


def mlp_module():
    drop = cpmlho.Dropout
    return nn.Sequential(
        nn.Flatten(),
        *(drop("dropout0"), nn.Linear(784, 24), nn.ReLU()),
        *(drop("dropout1"), nn.Linear(24, 24), nn.ReLU()),
        *(drop("dropout2"), nn.Linear(24, 10)),
    )


def cnn_module():
    def drop(name):
        return cpmlho.Dropout(name, channels=True)

    return nn.Sequential(
        *(drop("dropout0"), nn.Conv2d(1, 16, 5, padding=2), nn.MaxPool2d(2), nn.ReLU()),
        *(drop("dropout1"), nn.Conv2d(16, 32, 5, padding=2), nn.MaxPool2d(2), nn.ReLU()),
        *(drop("dropout2"), nn.Flatten(), nn.Linear(1568, 10)),
    )


CASES = {"mlp": (mlp(24, 10), mlp_module, DROPOUT), "cnn": (cnn(0, 10), cnn_module, {**DROPOUT, **CUTOUT})}
OPTIONS = {"theta": 2.0, "mu_init": 0.02, "cut_steps": None}
METHODS = {
    "delta_stn": DeltaSTN(warm_up=1),
    "stn": STN(response_learning_rate=0.02),
    "stn_joint": STN(response="stn_joint"),
    "cpmlho": CPMLHO(**OPTIONS, constraint="raw", max_planes=2, force="always"),
    "dual_ascent": CPMLHO(**OPTIONS, constraint="value", g="squared", multiplier="dual_ascent", dual_step=1e-3),
    "adbo": CPMLHO(**{**OPTIONS, "cut_steps": 7}, constraint="response_weight", per_layer=True, multiplier="adbo"),
    "displaced": CPMLHO(**OPTIONS, constraint="displaced", g="mean_l1", upper_regularised=True),
    "uncentred": CPMLHO(**OPTIONS, response="stn", g="l1", valid_steps=2),
}


def train_loss(net, batch, h):
    images, labels = batch
    if "cutout_length" in h:
        images = cpmlho.cutout(images, h.cutout_length, h.cutout_holes, max_holes=5, generator=h.generator)
    return F.cross_entropy(net(images), labels, reduction="none")


def valid_loss(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1], reduction="none")


def both(case, method):
    """The study's alternation and a tuner that start alike, and the tuner's training batches."""
    network, make, ranges = CASES[case]
    generator = torch.Generator().manual_seed(0)
    parts = [
        Split(torch.rand(96, 1, 28, 28, generator=generator), torch.arange(96) % 10, Tensor.double) for _ in range(3)
    ]
    problem = Problem(
        *(*parts, network, space(ranges)),
        train_loss=lambda outputs, labels, values: F.cross_entropy(outputs, labels),
        loss=F.cross_entropy,
    )
    planes = CuttingPlanes(method, len(network.layers), torch.device("cpu")) if isinstance(method, CPMLHO) else None
    theirs = Alternation(
        *(problem, CONDITIONS, method, getattr(method, "theta", None), planes),
        regularised=getattr(method, "upper_regularised", False),
    )
    streams = Streams(SEED, torch.device("cpu"))

    def batches(part, name):
        return Batches(part, 8, streams.host(name))

    module = make()
    tuner = cpmlho.Tuner(
        module,
        {name: cpmlho.Uniform(*each) for name, each in ranges.items()},
        train_loss,
        valid_loss,
        torch.optim.SGD(module.parameters(), 0.05),
        batches(problem.valid, "valid_order"),
        method=method,
        train=batches(problem.train, "upper_order"),
        steps_per_epoch=10,
        seed=SEED,
        check=False,
    )
    with torch.no_grad():
        for ours, start in zip(tuner._levels.layers.general, theirs.general.masters, strict=True):
            ours.W.copy_(start.W)
            ours.b.copy_(start.b)
        torch._foreach_copy_(tuner._levels.layers.parameters, [t for each in theirs.response.masters for t in each])
    return theirs, tuner, batches(problem.train, "train_order")


QUICK = ("delta_stn", "cpmlho")


@pytest.mark.parametrize(
    ("case", "method"),
    [
        *(("mlp", method) for method in QUICK),
        *(pytest.param("mlp", method, marks=pytest.mark.slow) for method in METHODS if method not in QUICK),
        pytest.param("cnn", "cpmlho", marks=pytest.mark.slow),
    ],
)
def test_a_trajectory_is_the_studys(case, method):
    cycle = 2 if case == "mlp" else 1
    theirs, tuner, batches = both(case, replace(METHODS[method], train_steps=cycle))
    start = tuner.values
    for step in range(1, CYCLES * cycle + 1):
        tuner.step(next(batches))
        theirs.iterate()
        if step % cycle == 0:
            theirs.update(tune=step > theirs.options.warm_up * 10)
        if theirs.planes is not None and theirs.planes.due(step, 10):
            theirs.cut()
    moved = theirs.problem.space.named(theirs.problem.space.values(theirs.raw.detach()))
    for name, value in tuner.values.items():
        assert value == pytest.approx(moved[name], rel=1e-6), name
    assert any(abs(value - start[name]) > 0.02 * start[name] for name, value in tuner.values.items())
    for ours, masters in (
        (tuner._levels.layers.general, theirs.general.masters),
        (tuner._levels.layers.response, theirs.response.masters),
    ):
        for layer, master in zip(ours, masters, strict=True):
            for one, other in zip(layer, master, strict=True):
                assert (one - other).norm() < 1e-6 * other.norm()
    if theirs.planes is not None:
        for ours, each in zip(tuner._levels.planes.sets, theirs.planes.sets, strict=True):
            assert ours.numbers.tolist() == each.numbers.tolist() != []
            torch.testing.assert_close(ours.mu, each.mu, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["delta_stn", "stn"])
def test_a_response_steps_gradients_are_the_studys(case, method):
    theirs, tuner, batches = both(case, METHODS[method])
    torch.manual_seed(1)
    for ours, other in zip(tuner._levels.layers.response, theirs.response.masters, strict=True):
        ours.H.copy_(other.H.normal_(std=0.05))
    theirs.iterate()
    found = []
    tuner._levels.response_optimizer.register_step_pre_hook(
        lambda optimizer, *_: found.extend(p.grad.clone() for p in optimizer.param_groups[0]["params"])
    )
    tuner.step(next(batches))
    for one, other in zip(found, theirs.gradient, strict=True):
        assert (one - other).norm() < 1e-9 * other.norm()
    assert all(gradient.norm() > 0 for gradient in found)
    assert isinstance(theirs.response.masters[0], Response)
