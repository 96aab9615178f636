"""What a Tuner tells about tuning: history and replay, the hypergradient and its quality, bounds, the best state."""

import copy
import warnings

import pytest
import torch
from torch import nn

import cpmlho

g = torch.Generator().manual_seed(3)
TRUTH = torch.randn(6, generator=g, dtype=torch.float64)


def draw(rows):
    x = torch.randn(rows, 6, generator=g, dtype=torch.float64)
    return x, x @ TRUTH + 1.5 * torch.randn(rows, generator=g, dtype=torch.float64)


TRAIN, VALID = draw(12), draw(60)


def squares(net, batch):
    return (net(batch[0])[:, 0] - batch[1]).square()


def ridge_loss(net, batch, h):
    return squares(net, batch) + 2 * h.ridge * net.l2()


def tuner(start=0.01, *, rate=0.05, train_loss=ridge_loss, middle=(), space=None, **options):
    torch.manual_seed(0)
    module = nn.Sequential(*middle, nn.Linear(6, 1, bias=False)).double()
    space = space or {"ridge": cpmlho.LogUniform(1e-4, 100, start)}
    return cpmlho.Tuner(
        module,
        space,
        train_loss,
        squares,
        torch.optim.SGD(module.parameters(), rate),
        [VALID],
        method=cpmlho.DeltaSTN(**options),
    )


def exact(lam):
    """The validation loss of the ridge regression at lambda."""
    x, y = TRAIN
    ridge = cpmlho.LogUniform(1e-4, 100, 1).value(torch.as_tensor(lam, dtype=torch.float64))
    w = torch.linalg.solve(x.T @ x / 12 + ridge * torch.eye(6, dtype=torch.float64), x.T @ y / 12)
    return (VALID[0] @ w - VALID[1]).square().mean().item()


def train(run, steps):
    for _ in range(steps):
        run.step(TRAIN)
    return run


def test_the_history_has_each_update():
    run, seen = tuner(warm_up_steps=6), []
    for step in range(1, 1311):
        loss = run.step(TRAIN)
        if step % 5 == 0 and step > 6:
            seen.append((step, run.values, loss.item()))
    start, *updates = run.history
    assert start.step == 0
    assert start.values == pytest.approx({"ridge": 0.01})
    assert [(u.step, u.values, u.train_loss) for u in updates] == seen
    assert 2 < updates[-1].valid_loss < 5


def test_the_history_continues_with_the_state():
    run = train(tuner(), 40)
    other = tuner()
    other.load_state_dict(run.state_dict())
    assert train(other, 20).history[1:] == train(run, 20).history[1:]
    assert len(run.history) == 13


def test_a_replay_trains_as_the_tuner_did():
    """Dropout, decay and draws of the loss included: the weights of the general step depend on the values alone."""

    def loss(net, batch, h):
        return squares(net, batch) + 2 * h.ridge * net.l2() + h.scale * squares(net, batch)

    space = {"ridge": cpmlho.LogUniform(1e-4, 100, 0.01), "scale": cpmlho.Uniform(0, 1, 0.3)}
    run = tuner(train_loss=loss, space=space)
    first = copy.deepcopy(run.module)
    schedule = cpmlho.replay(train(run, 60).history)
    optimizer = torch.optim.SGD(first.parameters(), 0.05)
    for step in range(60):
        optimizer.zero_grad()
        schedule.loss(first, loss, TRAIN, step).mean().backward()
        optimizer.step()
    torch.testing.assert_close(first[0].weight, run.module[0].weight)
    assert schedule(0) == schedule(4) == run.history[0].values
    assert schedule(5) == run.history[1].values
    assert schedule(1000) == run.values


def test_a_replay_sets_tuned_dropout():
    update = cpmlho.Update(0, {"rate": 0.5}, 0.0, 0.0)
    module = nn.Sequential(cpmlho.Dropout("rate"), nn.Identity())
    module.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    kept = cpmlho.replay([update]).loss(
        module, lambda net, batch, h: (net(batch) > 0).float().mean(1), torch.ones(4, 999), 0
    )
    assert ((kept - 0.5).abs() < 0.1).all()
    with pytest.raises(ValueError, match="must begin with the start values at step 0"):
        cpmlho.replay([])


@pytest.mark.slow
@pytest.mark.parametrize("start", [0.02, 5.0])
def test_the_hypergradient_is_that_of_the_exact_solution(start):
    """With tuning held still, the measured slope is that of the closed form, and the response predicts its sign."""
    run = tuner(start, warm_up_steps=10**6, perturbation_scale=0.1, response_start="random")
    train(run, 3000)
    lam = run.bilevel.lam.item()
    slope = (exact(lam + 0.05) - exact(lam - 0.05)) / 0.1
    assert 0.2 < run.hypergradient([VALID])["ridge"] / slope < 1.2  # one direction of response is not the exact one
    values, weights = run.values, run.module[0].weight.clone()
    quality = run.response_quality([TRAIN], [VALID], steps=1500, shift=0.1)
    assert quality.measured["ridge"] == pytest.approx(slope, rel=0.05)
    assert (quality.signs, round(quality.cosine, 6)) == (1, 1)
    assert run.values == values
    assert torch.equal(run.module[0].weight, weights)


def test_the_quality_of_an_untrained_response_is_measured_without_a_trace():
    asked, other = train(tuner(), 20), train(tuner(), 20)
    quality = asked.response_quality([TRAIN], [VALID], steps=5)
    assert quality.predicted.keys() == quality.measured.keys() == {"ridge"}
    assert train(asked, 20).values == train(other, 20).values
    stn = tuner()
    stn.bilevel.method = cpmlho.STN()
    with pytest.raises(ValueError, match="DeltaSTN and centred CPMLHO only"):
        stn.response_quality([TRAIN], [VALID])


def test_a_value_at_its_bound_is_pointed_out_once():
    run = tuner(1.5e-4, space={"ridge": cpmlho.LogUniform(1e-4, 100, 1.05e-4)}, hyper_learning_rate=1e-6)
    with pytest.warns(cpmlho.TunerWarning, match="ridge has been at a bound of its range, 0.0001 to 100, for 100"):
        train(run, 500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(run, 500)
        train(tuner(0.01, hyper_learning_rate=1e-6), 500)


def test_bias_correction_makes_first_steps_as_large_as_later_ones():
    def first(**options):
        run = tuner(**options)
        before = run.bilevel.lam.item()
        return abs(train(run, 5).bilevel.lam.item() - before)

    assert first(bias_correction=False) == pytest.approx(0.1, rel=0.01)  # RMSprop: the rate over sqrt(1 - 0.99)
    assert first() == pytest.approx(0.01, rel=0.01)


def test_the_best_state_comes_back():
    run = tuner()
    with pytest.raises(ValueError, match="no best state is kept"):
        run.load_best()
    found = []
    for _ in range(4):
        train(run, 5)
        found.append((run.evaluate([VALID], keep_best=True)["valid_loss"], run.values))
        if len(found) == 2:  # the last states are worse
            with torch.no_grad():
                run.module[0].weight.mul_(9)
    best = min(found)
    assert best != found[-1]
    assert run.load_best() == best[0]
    assert run.values == best[1]
    assert run.evaluate([VALID])["valid_loss"] == best[0]
