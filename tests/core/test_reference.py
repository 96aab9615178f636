"""The engine against the reference, step by step in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cpmlho
from cpmlho.core.augment import dropout_mask
from cpmlho.core.options import CPMLHO, STN, ResponseOptions
from cpmlho.core.spaces import Space
from cpmlho.core.streams import Streams
from reference import Reference

SEED, BATCH, STEPS = 3, 8, 60
PLANES = {"theta": 2.0, "mu_init": 0.02, "cut_steps": 7}
METHODS = {
    "delta_stn": ResponseOptions(),
    "stn": STN(response_learning_rate=0.02),
    "stn_joint": STN(response="stn_joint"),
    "cpmlho": CPMLHO(**PLANES),
    "always": CPMLHO(**PLANES, constraint="raw", max_planes=2, force="always"),
    "dual_ascent": CPMLHO(**PLANES, constraint="value", g="squared", multiplier="dual_ascent", dual_step=1e-3),
    "displaced": CPMLHO(**PLANES, constraint="displaced"),
    "uncentred": CPMLHO(**PLANES, response="stn", g="l1", valid_steps=2),
    "mixed_only": CPMLHO(theta=2.0, cutting_planes=False),
}


def mlp():
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def cnn():
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))


NETWORKS = {"mlp": (mlp, (6,)), "cnn": (cnn, (1, 4, 4))}


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def both(network, method):
    """A tuner and the reference with the same start, data and draws, and their step functions."""
    make, shape = NETWORKS[network]
    torch.manual_seed(SEED)
    module = make()
    inputs, labels = torch.randn(3, 40, *shape), torch.arange(40) % 3
    parts = [[(x[i : i + BATCH], labels[i : i + BATCH]) for i in range(0, 40, BATCH)] for x in inputs]
    space = Space({"drop": cpmlho.Uniform(0.0, 0.95, 0.2), "noise": cpmlho.LogUniform(0.01, 1.0, 0.05)})

    def act(x, values, generator):
        """Dropout and noise on the inputs, one strength for each example."""
        rows = x.flatten(1)
        rows = rows * dropout_mask(values[:, 0], rows, generator)
        drawn = torch.empty_like(rows).normal_(generator=generator)
        return (rows + drawn * values[:, 1:]).view_as(x)

    def train_loss(net, batch, h):
        values = torch.stack([h.drop, h.noise], 1)
        return F.cross_entropy(net(act(batch[0], values, h.generator)), batch[1], reduction="none")

    def valid_loss(net, batch):
        return F.cross_entropy(net(batch[0]), batch[1])

    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    tuner = cpmlho.Tuner(
        *(module, space, train_loss, valid_loss, optimizer, parts[1]), method=method, train=parts[2], seed=SEED
    )
    noise = {name: Streams(SEED, torch.device("cpu")).device(f"{name}_noise") for name in tuner.bilevel.noise}
    named = dict(zip((n for n, _ in module.named_parameters()), range(99), strict=False))
    starts = [t for each in tuner.bilevel.layers.response for t in (each.R, each.r)]
    reference = Reference(
        module,
        {name: starts[i].detach() for name, i in named.items()},
        *(space, method, 0.05),
        lambda name, size: torch.empty(size, 2).normal_(generator=noise[name]),
        lambda x, values, name: act(x, values, noise[name]),
    )
    batches, valid, upper = ([part[i % 5] for i in range(9 * STEPS)] for part in parts)
    return tuner, reference, batches, iter(valid), iter(upper)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_each_step_is_the_references(network, method):
    tuner, reference, batches, valid, upper = both(network, METHODS[method])
    start = tuner.values
    for batch in batches[:STEPS]:
        tuner.step(batch)
        reference.step(batch, valid, upper)
        torch.testing.assert_close(tuner.bilevel.lam.detach(), reference.lam, rtol=1e-9, atol=1e-9)
    responses = tuner.bilevel.layers.response
    for i, (name, p) in enumerate(tuner.module.named_parameters()):
        response, is_bias = responses[i // 2], i % 2
        H_w, H_b = response.H.detach().chunk(2)
        torch.testing.assert_close(p.detach(), reference.W[name], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close((response.R, response.r)[is_bias].detach(), reference.R[name], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close((H_w, H_b)[is_bias], reference.H[name], rtol=1e-7, atol=1e-10)
    assert all(abs(value - start[name]) > 1e-3 * start[name] for name, value in tuner.values.items())
