"""A bilevel problem with a closed-form optimum that the gradient methods must reach.

Lower level: min_f (f - 2)^2 + v f^2, so f*(v) = 2 / (1 + v). Upper level: (f*(v) - 1)^2, so v = 1. In mixed level it is
(f - 2)^2 + theta (f - 1)^2, least at f = (2 + theta) / (1 + theta), so v = 2 (1 + theta) / (2 + theta) - 1.
"""

from collections import namedtuple
from dataclasses import replace

import pytest
import torch
from cpmlho.core.events import Snapshot
from cpmlho.core.layers import Linear
from cpmlho.core.problem import Conditions, Problem, Split
from cpmlho.core.space import Space

from cpmlho.core.options import CPMLHO, ResponseOptions, Training
from cpmlho.core.response import ResponseNetwork
from cpmlho.study.methods.cpmlho import cpmlho
from cpmlho.study.methods.delta_stn import delta_stn

# The planes' force has a fixed size, and so has a response of one weight; where it is not small beside the loss's, it
# bends the response and with it the hypergradient. These multipliers keep it small.
GENTLE = {"multiplier": "fixed", "mu_init": 5e-4, "max_planes": 4}
Range = namedtuple("Range", ["low", "high", "start"])
TRAIN, VALID = 2.0, 1.0


def problem(start):
    def part(target, n):
        return Split(torch.ones(n, 1), torch.full((n,), target))

    return Problem(
        train=part(TRAIN, 800),
        valid=part(VALID, 80),
        test=part(VALID, 80),
        network=ResponseNetwork((Linear(1, 1),)),
        space=Space.of({"dropout0": Range(low=0.0, high=4.0, start=start)}),
        train_loss=lambda f, y, v: ((f[:, 0] - y) ** 2 + v[:, 0] * f[:, 0] ** 2).mean(),
        loss=lambda f, y: ((f[:, 0] - y) ** 2).mean(),
    )


CONDITIONS = Conditions(Training(batch_size=8, learning_rate=0.05), epochs=25, seed=0)


def solve(method, options, start):
    """The hyperparameter and the prediction at the end."""
    options = replace(options, perturbation_scale=0.2, entropy_weight=1e-4)
    *_, last = (event for event in method(problem(start), CONDITIONS, options) if isinstance(event, Snapshot))
    with torch.no_grad():
        return last.hyperparameters["dropout0"], last.predict(torch.ones(1, 1)).item()


@pytest.mark.parametrize("start", [0.2, pytest.param(3.0, marks=pytest.mark.slow)])
def test_delta_stn_reaches_the_optimum(start):
    v, f = solve(delta_stn, ResponseOptions(), start)
    assert v == pytest.approx(1.0, abs=0.1)
    assert f == pytest.approx(2 / (1 + v), abs=0.03)  # the lower level is solved at the v that was found


@pytest.mark.parametrize("start", [0.2, pytest.param(3.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "theta", [pytest.param(0.5, marks=pytest.mark.slow), 1.0, pytest.param(4.0, marks=pytest.mark.slow)]
)
def test_cpmlho_reaches_the_mixed_optimum(start, theta):
    v, f = solve(cpmlho, CPMLHO(theta=theta, **GENTLE), start)
    assert v == pytest.approx(2 * (1 + theta) / (2 + theta) - 1, abs=0.1)
    assert f == pytest.approx(2 / (1 + v), abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("start", [0.2, 3.0])
def test_cutting_planes_alone_keep_the_bilevel_optimum(start):
    v, _ = solve(cpmlho, CPMLHO(mixed_level=False, **GENTLE), start)
    assert v == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
def test_stn_reaches_the_optimum():
    v, _ = solve(delta_stn, ResponseOptions(response="stn"), 0.2)
    assert v == pytest.approx(1.0, abs=0.15)
