"""The alternation's steps under each reading, against their definitions written out."""

import copy
from collections import namedtuple
from dataclasses import replace

import pytest
import torch
from cpmlho.core.alternating import Alternation
from cpmlho.core.events import Snapshot
from cpmlho.core.layers import Flatten, Linear, Relu
from cpmlho.core.problem import Conditions, Problem, Split
from cpmlho.core.space import Space
from cpmlho.core.steps import Trainable, flat, joint_gradients

from cpmlho.core.options import CPMLHO, STN, CPMLHOUncentred, ResponseOptions, Training
from cpmlho.core.planes import CuttingPlanes
from cpmlho.core.response import Displacement, General, ResponseNetwork
from cpmlho.core.response import Response as Layer
from cpmlho.study.methods.cpmlho import cpmlho

Range = namedtuple("Range", ["low", "high", "start"])
INPUTS, HIDDEN, N, BATCH = 3, 4, 2, 5


def penalised(outputs, labels, values):
    """A lower level that hyperparameters move without noise, in the outputs' own dtype."""
    return ((outputs[:, 0] - labels) ** 2 + values[:, 0] * outputs[:, 0] ** 2 + values[:, 1] * outputs[:, 0]).mean()


def squared(outputs, labels):
    return ((outputs[:, 0] - labels) ** 2).mean()


def problem():
    generator = torch.Generator().manual_seed(3)

    def part(n):
        return Split(torch.randn(n, INPUTS, generator=generator), torch.randn(n, generator=generator))

    return Problem(
        train=part(50),
        valid=part(20),
        test=part(20),
        network=ResponseNetwork((Flatten(), Linear(INPUTS, HIDDEN), Relu(), Linear(HIDDEN, 1))),
        space=Space.of({"dropout1": Range(0.0, 4.0, 0.5), "dropout2": Range(0.0, 1.0, 0.3)}),
        train_loss=penalised,
        loss=squared,
    )


CONDITIONS = Conditions(Training(batch_size=BATCH, learning_rate=0.05), epochs=3, seed=0)


def alternation(options, momentum=0.0, **parts):
    conditions = replace(CONDITIONS, training=replace(CONDITIONS.training, momentum=momentum))
    return Alternation(problem(), conditions, options, **parts)


def moved(run):
    """With response maps that are no longer zero."""
    for _ in range(5):
        run.iterate()
        run.update(tune=True)
    return run


def output(inputs, general, response, d):
    """The network with each example's own weights, written out."""
    a = inputs
    for last, ((W, b), (R, r, H)) in enumerate(zip(general, response, strict=True)):
        half = len(W)
        weights = W + (d @ H[:half].T).unsqueeze(2) * R  # (B, out, in)
        a = (weights @ a.unsqueeze(2)).squeeze(2) + b + (d @ H[half:].T) * r
        a = a if last else a.clamp(min=0)
    return a


def doubled(layers):
    return [type(layer)(*(p.detach().double().clone() for p in layer)) for layer in layers]


def test_the_joint_step_is_autograds_of_the_network_written_out():
    task, run = problem(), moved(alternation(ResponseOptions()))
    general, response = doubled(run.general.masters), doubled(run.response.masters)
    generator = torch.Generator().manual_seed(1)
    inputs, labels, raw = (
        torch.randn(shape, generator=generator).double() for shape in ((BATCH, 3), BATCH, (BATCH, 2))
    )
    values = task.space.values(raw)
    leaves = [p.clone().requires_grad_() for p in (*flat(general), *flat(response))]
    own = [General(*leaves[i : i + 2]) for i in (0, 2)]
    responding = [Layer(*leaves[i : i + 3]) for i in (4, 7)]
    expected = torch.autograd.grad(penalised(output(inputs, own, responding, raw), labels, values), leaves)
    found = joint_gradients(
        task,
        Trainable(general, torch.float64),
        (inputs, labels),
        values,
        torch.Generator(),
        Displacement(response, raw),
    )
    assert [len(part) for part in found] == [4, 6]
    for ours, theirs in zip([*found[0], *found[1]], expected, strict=True):
        assert theirs.any()
        torch.testing.assert_close(ours, theirs)


def test_the_joint_iteration_steps_both_parts_along_one_gradient():
    run, other = (moved(alternation(STN(response="stn_joint"))) for _ in range(2))
    before = [p.clone() for p in (*flat(run.general.masters), *flat(run.response.masters))]
    (inputs, labels), raw = next(other.train), other.raw.detach()
    displaced = raw + other._perturbation(BATCH, "response").detach()
    leaves = [p.requires_grad_() for p in before]
    own, responding = [General(*leaves[i : i + 2]) for i in (0, 2)], [Layer(*leaves[i : i + 3]) for i in (4, 7)]
    loss = penalised(output(inputs, own, responding, displaced), labels, run.problem.space.values(displaced))
    gradients = torch.autograd.grad(loss, leaves)
    run.iterate()
    after = (*flat(run.general.masters), *flat(run.response.masters))
    for new, old, gradient in zip(after, leaves, gradients, strict=True):
        torch.testing.assert_close(new, old.detach() - 0.05 * gradient)


@pytest.mark.parametrize("response", ["delta_stn", "stn", "stn_joint"])
def test_the_rate_of_the_response_steps_it_alone(response):
    runs = [moved(alternation(ResponseOptions(response=response))) for _ in range(2)]
    before = [p.clone() for p in flat(runs[0].response.masters)]
    runs[1].options = replace(runs[1].options, response_learning_rate=0.2)  # four times the lower level's
    for run in runs:
        run.iterate()
    for a, b in zip(*(flat(run.general.masters) for run in runs), strict=True):
        assert torch.equal(a, b)
    for old, slow, fast in zip(before, *(flat(run.response.masters) for run in runs), strict=True):
        torch.testing.assert_close(fast - old, 4 * (slow - old), rtol=1e-3, atol=1e-6)
        assert not torch.equal(slow, old)


def upper_gradients(run):
    """What the hyperparameter step would step along."""
    seen = []
    run.optimizer.step = seen.append
    run.hyperparameter_step()
    (gradients,) = seen
    return gradients


@pytest.mark.parametrize("response", ["delta_stn", "stn"])
def test_the_regularised_upper_level_has_the_lower_levels_loss_at_values_that_are_not_differentiated(response):
    options = CPMLHO(response=response, theta=0.7, entropy_weight=0.01)

    def make():
        return moved(alternation(options, theta=0.7, regularised=True))

    run, twin = make(), make()
    (valid, train), raw, spread = (next(twin.valid), next(twin.upper)), twin.raw, twin.spread
    at = [raw + twin._perturbation(BATCH, name) for name in ("valid", "upper")]
    general, layers = twin.general.masters, twin.response.masters

    def gradients(values):
        shown = [output(x, general, layers, d - twin.centre) for (x, _), d in zip((valid, train), at, strict=True)]
        loss = penalised(shown[1], train[1], values) + 0.7 * squared(shown[0], valid[1])
        sigma = torch.nn.functional.softplus(spread)
        entropy = 0.5 * (2 * torch.pi * torch.e * sigma**2).log().sum()
        return torch.autograd.grad(loss - 0.01 * entropy, [raw, spread], retain_graph=True)

    values = twin.problem.space.values(at[1])
    ours = upper_gradients(run)
    for a, b, wrong in zip(ours, gradients(values.detach()), gradients(values), strict=True):
        torch.testing.assert_close(a, b)
        assert not torch.allclose(b, wrong)
    for a, plain in zip(ours, upper_gradients(moved(alternation(options, theta=0.7))), strict=True):
        assert not torch.allclose(a, plain)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("response", ["delta_stn", "stn", "stn_joint"])
def test_an_interrupted_alternation_goes_on_to_the_same_bits(response, momentum):
    options = CPMLHO(response=response, constraint="displaced", max_planes=2, cut_steps=3, multiplier="adbo")

    def make():
        return alternation(options, momentum, theta=1.0, planes=CuttingPlanes(options, 2, torch.device("cpu")))

    def go(run, steps):
        for step in steps:
            run.iterate()
            if step % 2 == 0:
                run.update(tune=True)
            if run.planes.due(step, 10):
                run.cut()

    whole, first, second = make(), make(), make()
    go(whole, range(1, 13))
    go(first, range(1, 8))
    second.restore(copy.deepcopy(first.state()))
    go(second, range(8, 13))
    for a, b in zip(whole.state()["parameters"], second.state()["parameters"], strict=True):
        assert torch.equal(a, b)
    assert len(whole.general.velocities) == (4 if momentum else 0)
    assert whole.plane_states(1, 12) == second.plane_states(1, 12) != []


def test_the_planes_hold_the_displacement_of_the_last_response_step():
    options = CPMLHO(constraint="displaced")
    run, twin = (moved(alternation(options, planes=CuttingPlanes(options, 2, torch.device("cpu")))) for _ in range(2))
    used = twin._perturbation(BATCH, "response").detach().mean(0)
    run.iterate()
    torch.testing.assert_close(run.coordinates, used)


def taken(**options):
    """The numbers of the planes at the end of each of three epochs of 10 iterations."""
    events = cpmlho(problem(), CONDITIONS, CPMLHOUncentred(**{"max_planes": 2, "cut_steps": None, **options}))
    return [[plane.plane for plane in event.planes] for event in events if isinstance(event, Snapshot)]


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"cut_every": 1}, [[1], [1, 2], [2, 3]]),
        ({"cut_every": 2}, [[], [1], [1]]),
        ({"cut_steps": 4}, [[1, 2], [4, 5], [6, 7]]),
        ({"cut_steps": 25, "cut_every": 1}, [[], [], [1]]),
    ],
)
def test_a_run_takes_planes_when_they_are_due(options, numbers):
    assert taken(**options) == numbers


def test_the_upper_level_rests_during_the_warm_up_and_the_planes_do_not():
    options = CPMLHO(warm_up=2, multiplier="adbo", cut_steps=8)
    *_, last = [event for event in cpmlho(problem(), CONDITIONS, options) if isinstance(event, Snapshot)]
    cold = [event for event in cpmlho(problem(), CONDITIONS, options) if isinstance(event, Snapshot)][:2]
    start = problem().space.named(problem().space.start)
    assert [event.hyperparameters for event in cold] == [pytest.approx(start)] * 2
    assert cold[1].planes[0].mu > 0
    assert [(update.update, update.step) for update in last.updates] == [(1, 25), (2, 30)]
    assert last.hyperparameters != pytest.approx(start)
