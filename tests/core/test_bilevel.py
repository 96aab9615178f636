"""Both levels: a problem with a closed-form optimum, and what each option means.

Lower level: min_f (f - 2)^2 + v f^2, so f*(v) = 2 / (1 + v). Upper level: (f*(v) - 1)^2, so v = 1. In mixed level it is
(f - 2)^2 + theta (f - 1)^2, least at f = (2 + theta) / (1 + theta), so v = 2 (1 + theta) / (2 + theta) - 1.
`tests/reference.py` has the steps of each method written out.
"""

import copy

import pytest
import torch
from torch import nn

import cpmlho
from cpmlho.core.options import CPMLHO, STN, CPMLHOUncentred, ResponseOptions
from cpmlho.core.response import MEAN_DECAY

DeltaSTN = cpmlho.DeltaSTN
# A plane's force has a fixed size. Where it is not small compared with the loss's, it bends the hypergradient.
GENTLE = {"multiplier": "fixed", "mu_init": 5e-4, "max_planes": 4}
ONE = torch.ones(8, 1, dtype=torch.float64)
SLOW = pytest.mark.slow


def penalised(net, batch, h):
    f = net(batch[0])[:, 0]
    return (f - batch[1]) ** 2 + h.v * f**2


def decayed(net, batch, h):
    """(f - 2)^2 + 3 v (w^2 + b^2) / 4 with f = w + b, least at w = b = 4 / (4 + 3 v / 2), so f = 1 at v = 8 / 3."""
    return (net(batch[0])[:, 0] - batch[1]) ** 2 + 1.5 * h.v * net.l2(lambda name: True)


def squared(net, batch):
    return (net(batch[0])[:, 0] - batch[1]) ** 2


def solve(method, start, loss=penalised, cycles=300, **options):
    """The tuned value between 0 and 4, and what the module predicts there."""
    torch.manual_seed(0)
    module = nn.Linear(1, 1).double()
    method = method(perturbation_scale=0.2, entropy_weight=1e-4, hyper_learning_rate=0.02, **options)
    space, optimizer = {"v": cpmlho.Uniform(0, 4, start)}, torch.optim.SGD(module.parameters(), 0.05)
    valid = [(ONE, torch.ones(8))]
    tuner = cpmlho.Tuner(module, space, loss, squared, optimizer, valid, method=method, check=False)
    for _ in range(5 * cycles):
        tuner.step((ONE, torch.full((8,), 2.0)))
    with torch.no_grad():
        return tuner.values["v"], tuner.net(ONE)[0].item()


@pytest.mark.parametrize(
    ("method", "start", "options"),
    [
        (DeltaSTN, 0.2, {}),
        pytest.param(DeltaSTN, 3.0, {}, marks=SLOW),
        pytest.param(STN, 0.2, {}, marks=SLOW),
        pytest.param(STN, 0.2, {"response": "stn_joint"}, marks=SLOW),
        pytest.param(CPMLHO, 0.2, {"mixed_level": False, **GENTLE}, marks=SLOW),
        pytest.param(DeltaSTN, 0.2, {"response_start": "weights"}, marks=SLOW),
        pytest.param(DeltaSTN, 0.2, {"response_start": "weights", "response_weights": "frozen"}, marks=SLOW),
        (DeltaSTN, 0.2, {"response_start": "weights", "response_weights": "tied"}),
        pytest.param(DeltaSTN, 0.2, {"response_start": "weights", "response_weights": "mean"}, marks=SLOW),
        (DeltaSTN, 0.2, {"response": "temperature"}),
    ],
)
def test_the_bilevel_optimum(method, start, options):
    v, f = solve(method, start, **options)
    assert v == pytest.approx(1.0, abs=0.1)
    assert f == pytest.approx(2 / (1 + v), abs=0.03)  # the lower level is solved at the v that was found


@pytest.mark.parametrize("theta", [1.0, pytest.param(0.5, marks=SLOW), pytest.param(4.0, marks=SLOW)])
@pytest.mark.parametrize("start", [0.2, pytest.param(3.0, marks=SLOW)])
def test_the_mixed_optimum(start, theta):
    v, f = solve(CPMLHO, start, theta=theta, **GENTLE)
    assert v == pytest.approx(2 * (1 + theta) / (2 + theta) - 1, abs=0.1)
    assert f == pytest.approx(2 / (1 + v), abs=0.03)


@SLOW
@pytest.mark.parametrize("start", [0.5, 3.5])
def test_the_optimum_of_a_decay(start):
    v, f = solve(DeltaSTN, start, decayed, cycles=450)
    assert v == pytest.approx(8 / 3, abs=0.25)
    assert f == pytest.approx(8 / (4 + 1.5 * v), abs=0.03)


# What each option means


X, Y = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)), torch.randn(16)


def made(method, *, steps=0, momentum=0.0, **named):
    """A tuner of a small module after some steps, without checks unless they are asked for."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), cpmlho.Dropout("rate"), nn.Tanh(), nn.Linear(6, 1))
    space = {"v": cpmlho.Uniform(0, 4, 0.5), "rate": cpmlho.Uniform(0, 0.9, 0.2)}
    optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=momentum)
    named = {"check": False, "steps_per_epoch": 10, "train": [(X[8:], Y[8:])], **named}
    tuner = cpmlho.Tuner(module, space, penalised, squared, optimizer, [(X[:8], Y[:8])], method=method, **named)
    for _ in range(steps):
        tuner.step((X, Y))
    return tuner


def weights(tuner):
    return [p.detach().clone() for p in tuner.module.parameters()]


def responses(tuner):
    return [p.detach().clone() for p in tuner.bilevel.layers.parameters]


def test_the_response_starts_at_random_or_at_the_weights():
    own, found = weights(made(DeltaSTN(response_start="random"))), responses(made(DeltaSTN(response_start="weights")))
    for (W, b), (R, r, H) in zip(
        zip(own[::2], own[1::2], strict=True), zip(*[iter(found)] * 3, strict=True), strict=True
    ):
        assert torch.equal(R, W)
        assert torch.equal(r, b)
        assert not H.any()
    assert not torch.equal(responses(made(DeltaSTN(response_start="random")))[0], own[0])


@pytest.mark.parametrize("start", ["random", "weights"])
@pytest.mark.parametrize("kind", ["free", "frozen", "tied", "mean"])
def test_how_the_response_weights_move(kind, start):
    tuner = made(DeltaSTN(response_weights=kind, response_start=start), steps=0)
    for _ in range(12):
        before = responses(tuner)
        tuner.step((X, Y))
        own, after = weights(tuner), responses(tuner)
        for i, W in ((0, own[0]), (1, own[1]), (3, own[2]), (4, own[3])):
            if kind == "frozen":
                assert torch.equal(after[i], before[i])
            elif kind == "tied":
                assert torch.equal(after[i], W)
            elif kind == "mean":
                torch.testing.assert_close(after[i], 0.99 * before[i] + 0.01 * W)
        assert not torch.equal(after[2], before[2])  # H trains in any case
    assert (kind == "free") == all(p.requires_grad for p in tuner.bilevel.layers.parameters)
    assert MEAN_DECAY == 0.99


def test_a_temperature_scales_the_output_and_leaves_the_module_alone():
    tuner = made(DeltaSTN(response="temperature"), steps=10)
    (h,) = tuner.bilevel.layers.parameters
    assert h.shape == (2,)
    assert h.any()
    delta = torch.randn(16, 2)
    module = tuner.module.eval()
    net = type(tuner.net)(tuner.bilevel.layers, tuner.net._values, delta)
    out = net(X)
    torch.testing.assert_close(out, module(X) * (1 + delta @ h)[:, None])
    own = torch.autograd.grad(out.sum(), [h, *module.parameters()], allow_unused=True)
    assert own[0].any()
    assert own[1:] == (None,) * 4
    torch.testing.assert_close(tuner.net(X), module(X))  # at the current hyperparameters
    assert all(
        torch.equal(a, b) for a, b in zip(tuner.module_state().values(), module.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("options", "first"),
    [({}, 5), ({"warm_up": 2}, 25), ({"warm_up_steps": 7}, 10), ({"warm_up": 1, "warm_up_steps": 5}, 20)],
)
def test_the_upper_level_rests_during_the_warm_up(options, first):
    tuner = made(DeltaSTN(**options))
    start = tuner.values
    moved = [tuner.steps for _ in range(30) if tuner.step((X, Y)) is not None and tuner.values != start]
    assert moved[0] == first


@pytest.mark.parametrize("response", ["delta_stn", "stn", "stn_joint"])
def test_the_responses_learning_rate_is_its_own(response):
    runs = [made(ResponseOptions(response=response), steps=5) for _ in range(2)]
    before = responses(runs[0])
    object.__setattr__(runs[1].bilevel.method, "response_learning_rate", 0.2)  # four times the lower level's
    for run in runs:
        run.step((X, Y))
    assert all(torch.equal(a, b) for a, b in zip(weights(runs[0]), weights(runs[1]), strict=True))
    for old, slow, fast in zip(before, *map(responses, runs), strict=True):
        torch.testing.assert_close(fast - old, 4 * (slow - old), rtol=1e-3, atol=1e-6)
        assert not torch.equal(slow, old)


def test_the_joint_step_is_along_the_gradients_of_one_loss():
    run = made(STN(response="stn_joint", train_steps=100), steps=3)
    twin = copy.deepcopy(run.state_dict())
    bilevel = run.bilevel
    perturbed = bilevel.lam.detach() + bilevel.perturbation(16, "response").detach()
    loss = bilevel.training_loss((X, Y), perturbed, perturbed, "response")
    leaves = [*run.module.parameters(), *bilevel.layers.parameters]
    expected = [p.detach() - 0.05 * g for p, g in zip(leaves, torch.autograd.grad(loss, leaves), strict=True)]
    run.load_state_dict(twin)
    run.step((X, Y))
    for new, wanted in zip(leaves, expected, strict=True):
        torch.testing.assert_close(new.detach(), wanted)


def test_the_regularised_upper_level_has_the_lower_levels_loss():
    """Its values of the hyperparameters are not differentiated; only the response is."""
    found = []
    for regularised in (True, False):
        run = made(CPMLHO(upper_regularised=regularised), steps=4)
        bilevel, kept = run.bilevel, run.state_dict()
        loss = bilevel._upper_training_loss((X[8:], Y[8:]))
        found.append(torch.autograd.grad(loss, bilevel.lam)[0])
        if regularised:
            run.load_state_dict(kept)
            lam = bilevel.lam + bilevel.perturbation(8, "upper")
            own = bilevel.training_loss((X[8:], Y[8:]), lam.detach(), lam - bilevel.lam.detach(), "masks")
            torch.testing.assert_close(found[0], torch.autograd.grad(own, bilevel.lam)[0])
    assert not torch.allclose(*found)


def test_the_planes_hold_the_displacement_of_the_last_response_step():
    run = made(CPMLHO(constraint="displaced", cut_steps=50), steps=3)
    kept = run.state_dict()
    used = run.bilevel.perturbation(16, "response").detach().mean(0)
    run.load_state_dict(kept)
    run.step((X, Y))
    torch.testing.assert_close(run.bilevel.coordinates(), used)


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"cut_every": 1, "cut_steps": None}, [[1], [1, 2], [2, 3]]),
        ({"cut_every": 2, "cut_steps": None}, [[], [1], [1]]),
        ({"cut_steps": 4}, [[1, 2], [4, 5], [6, 7]]),
        ({"cut_steps": 25}, [[], [], [1]]),
    ],
)
def test_planes_are_taken_when_they_are_due(options, numbers):
    run, found = made(CPMLHOUncentred(max_planes=2, **options)), []
    for _ in range(3):
        for _ in range(10):
            run.step((X, Y))
        states = run.bilevel.planes.states(1, 1, run.bilevel.gap(), 0.0) if len(run.bilevel.planes) else []
        found.append([state.plane for state in states])
    assert found == numbers
