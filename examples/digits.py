"""Tune weight decay and label smoothing of an MLP on scikit-learn's digits."""

import torch
import torch.nn.functional as F
from common import compare

try:
    from sklearn.datasets import load_digits
except ImportError:
    raise SystemExit("this example needs scikit-learn: pip install scikit-learn") from None
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import cpmlho

EPOCHS = 30
SPACE = {"smoothing": cpmlho.Uniform(0, 0.5, start=0.1), "decay": cpmlho.LogUniform(1e-6, 1e-1, start=1e-4)}
pixels, labels = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(pixels, dtype=torch.float32) / 8 - 1, torch.tensor(labels))
train_set, valid_set, test_set = random_split(data, [800, 500, 497], torch.Generator().manual_seed(0))


def make(values):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return module, torch.optim.AdamW(module.parameters(), 1e-3, weight_decay=0)


def train_loss(net, batch, h):
    log_p = net(batch[0]).log_softmax(1)
    right = log_p.gather(1, batch[1][:, None])[:, 0]
    return -(1 - h.smoothing) * right - h.smoothing * log_p.mean(1) + h.decay * net.l2()


def valid_loss(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1], reduction="none")


def batches():
    loader = DataLoader(train_set, 50, shuffle=True)
    return (batch for _ in range(EPOCHS) for batch in loader)


def losses(module):
    with torch.no_grad():
        return tuple(valid_loss(module, part[:]).mean().item() for part in (valid_set, test_set))


compare("digits", SPACE, make, train_loss, valid_loss, batches, DataLoader(valid_set, 100, shuffle=True), losses)
