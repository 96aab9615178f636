"""Tune the ridge penalty of a linear regression and compare it with the known optimum."""

import torch
from common import compare
from torch import nn

import cpmlho

STEPS, FEATURES = 1500, 20
SPACE = {"ridge": cpmlho.LogUniform(1e-3, 10, start=0.01)}
g = torch.Generator().manual_seed(0)
truth = torch.randn(FEATURES, generator=g) / FEATURES**0.5


def draw(count):
    x = torch.randn(count, FEATURES, generator=g)
    return x, x @ truth + torch.randn(count, generator=g)


train_set, valid_set, test_set = draw(40), draw(200), draw(2000)


def make(values):
    module = nn.Linear(FEATURES, 1, bias=False)
    nn.init.zeros_(module.weight)
    return module, torch.optim.SGD(module.parameters(), 0.05)


def squares(net, batch):
    return (net(batch[0])[:, 0] - batch[1]).square()


def train_loss(net, batch, h):
    return squares(net, batch) + 2 * h.ridge * net.l2()


def losses(module):
    with torch.no_grad():
        return tuple(squares(module, part).mean().item() for part in (valid_set, test_set))


def exact(ridge):
    """Return the losses of the weights that solve the training problem, (X'X / N + ridge) w = X'y / N."""
    x, y = train_set
    module = nn.Linear(FEATURES, 1, bias=False)
    gram = x.T @ x / len(x) + ridge * torch.eye(FEATURES)
    with torch.no_grad():
        module.weight.copy_(torch.linalg.solve(gram, x.T @ y / len(x)))
    return losses(module)


compare("ridge", SPACE, make, train_loss, squares, lambda: [train_set] * STEPS, [valid_set], losses)
best = min(torch.logspace(-3, 1, 401).tolist(), key=lambda ridge: exact(ridge)[0])
print(
    f"  {'known optimum':<24} validation loss {exact(best)[0]:.4f}, test loss {exact(best)[1]:.4f}, at ridge {best:.3g}"
)
