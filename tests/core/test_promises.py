"""What every method promises: exact resumption, a plain state_dict, checks and accumulation that change nothing."""

import io

import pytest
import torch
import torch.nn.functional as F
from setups import METHODS, RATE, X, Y, entropy, quietly
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cpmlho

DATA = TensorDataset(X, Y)
SPACE = {"r": cpmlho.Uniform(0, 1, 0.3), "rate": RATE}
OPTIMIZERS = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9),
    "Adam": lambda parameters: torch.optim.Adam(parameters, 0.01),
}
every_method = pytest.mark.parametrize("method", METHODS)


def penalised(net, batch, h):
    """Both penalties reach a response of the weights; a temperature sees that of the outputs alone."""
    outputs = net(batch[0])
    return F.cross_entropy(outputs, batch[1], reduction="none") + h.r * (outputs.square().sum(1) + net.l2() / 9)


def made(method, *, seed=0, optimizer="momentum", valid=None, middle=(), dtype=torch.float32, **named):
    torch.manual_seed(seed)
    places = cpmlho.Dropout("rate"), *middle, nn.Tanh()
    module = nn.Sequential(nn.Linear(4, 6), *places, nn.Linear(6, 3)).to(dtype)
    named = {"train": [(X[4:].to(dtype), Y[4:])], "seed": seed, **named}
    optimizer = OPTIMIZERS[optimizer](module.parameters())
    return cpmlho.Tuner(
        module, SPACE, penalised, entropy, optimizer, valid or [(X.to(dtype), Y)], method=METHODS[method], **named
    )


def state_of(run):
    return [*run.module.state_dict().values(), *run.bilevel.layers.parameters, run.bilevel.lam, run.bilevel.rho]


def equal(one, two):
    return all(torch.equal(a, b) for a, b in zip(state_of(one), state_of(two), strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@every_method
def test_a_saved_state_continues_bit_identically_more_than_once(method, optimizer):
    def make(seed):
        loaders = {
            "valid": DataLoader(DATA, 3, shuffle=True),
            "train": DataLoader(DATA, 3, shuffle=True, generator=torch.Generator().manual_seed(5 + seed)),
        }
        noisy = nn.BatchNorm1d(6), nn.Dropout(0.2)
        return made(method, seed=seed, optimizer=optimizer, middle=noisy, check=False, **loaders)

    def epochs(run, count):
        for _ in range(count):
            for batch in DataLoader(DATA, 2, shuffle=True):
                run.step(batch)
        return run

    whole, kept = epochs(make(0), 2), io.BytesIO()
    torch.save(whole.state_dict(), kept)
    epochs(whole, 3)
    state = torch.load(io.BytesIO(kept.getvalue()), weights_only=True)
    for _ in range(2):
        other = make(1)
        other.load_state_dict(state)
        epochs(other, 3)
        assert equal(other, whole)
        assert other.steps == whole.steps == 20
        assert other.history[1:] == whole.history[1:]
        assert len(other.history) == 5
        if whole.bilevel.planes:
            assert other.bilevel.gradient_share() == whole.bilevel.gradient_share() > 0


@every_method
def test_the_modules_state_predicts_what_the_net_does(method):
    run = made(method, check=False)
    for _ in range(20):
        run.step((X, Y))
    run.module.eval()
    plain = nn.Sequential(nn.Linear(4, 6), nn.Identity(), nn.Tanh(), nn.Linear(6, 3))
    plain.load_state_dict(run.module_state())
    torch.testing.assert_close(plain(X), run.net(X))
    assert torch.equal(plain(X), run.module(X)) == run.bilevel.centred


@every_method
def test_the_checks_say_nothing_and_change_nothing(method):
    checked, plain = made(method), made(method, check=False)
    quietly(checked, 10)
    quietly(plain, 10)
    assert equal(checked, plain)
    assert checked.values != made(method).values


@every_method
def test_accumulated_batches_equal_their_joint_batch(method):
    """torch draws normal numbers in blocks of 16, here 8 rows: so even the perturbations are the same."""

    def make():
        x, y = torch.cat([X, X.flip(0)]).double(), torch.cat([Y, Y])
        run = made(method, valid=[(x, y)], dtype=torch.float64, train=[(x, y)], check=False)
        run.module[1].eval()  # its masks are drawn in blocks that depend on the batch
        return run, x, y

    (joint, x, y), (accumulated, *_) = make(), make()
    for _ in range(20):
        loss = joint.step((x, y))
        torch.testing.assert_close(accumulated.step((x[:8], y[:8]), (x[8:], y[8:])), loss)
    assert accumulated.steps == 20
    torch.testing.assert_close(state_of(accumulated), state_of(joint))
