"""All methods, and a small classifier with one hyperparameter, which most tests of the library tune."""

import warnings

import torch
import torch.nn.functional as F
from torch import nn

import cpmlho
from cpmlho.core.options import CPMLHO, STN, CPMLHOUncentred, DeltaSTN, ResponseOptions

METHODS = {
    "delta_stn": DeltaSTN(),
    "published": ResponseOptions(),
    "rank": DeltaSTN(rank=2),
    "frozen": DeltaSTN(response_weights="frozen"),
    "tied": DeltaSTN(response_weights="tied"),
    "mean": DeltaSTN(response_weights="mean", response_start="random"),
    "temperature": DeltaSTN(response="temperature"),
    "stn": STN(),
    "stn_joint": STN(response="stn_joint"),
    "cpmlho": CPMLHO(cut_steps=3, max_planes=2),
    "mixed_only": CPMLHO(cutting_planes=False),
    "uncentred": CPMLHOUncentred(cut_steps=4),
    "per_layer": CPMLHO(cut_steps=3, per_layer=True, constraint="displaced", force="always", upper_regularised=True),
    "dual_ascent": CPMLHO(cut_steps=3, multiplier="dual_ascent", max_planes=2, constraint="value", g="mean_l1"),
    "adbo": CPMLHO(cut_steps=3, multiplier="adbo", max_planes=2, constraint="raw", response="stn"),
}
X, Y = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
SPACE = {"r": cpmlho.Uniform(0, 1, 0.3)}
RATE = cpmlho.Uniform(0, 0.9, 0.1)


def mlp(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), *(middle or [nn.Tanh()]), nn.Linear(6, 3))


def entropy(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1], reduction="none")


def decayed(net, batch, h):
    return entropy(net, batch) + h.r * net.l2()


def tuner(
    module=None, train_loss=decayed, valid_loss=entropy, *, space=SPACE, optimizer=None, valid=((X, Y),), **named
):
    module = module or mlp()
    optimizer = optimizer or torch.optim.SGD(module.parameters(), 0.1)
    return cpmlho.Tuner(module, space, train_loss, valid_loss, optimizer, valid, **named)


def train(run, steps=1, batch=(X, Y)):
    for _ in range(steps):
        run.step(batch)
    return run


def quietly(run, steps=1):
    """Train without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return train(run, steps)
