"""Tune dropout, shift and weight decay of a small residual network with BatchNorm on generated 3 x 32 x 32 pictures.

Each class is a grating with its own direction and colour. Phase and strong noise vary between pictures.
"""

import math

import torch
import torch.nn.functional as F
from common import compare
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cpmlho

EPOCHS, CLASSES = 5, 6
SPACE = {
    "rate": cpmlho.Uniform(0, 0.7, start=0.2),
    "distance": cpmlho.Uniform(0, 8, start=1),
    "decay": cpmlho.LogUniform(1e-6, 1e-1, start=1e-4),
}


def pictures(count, seed):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    angle, phase = math.pi * labels / CLASSES, 2 * math.pi * torch.rand(count, generator=g)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    wave = angle.cos()[:, None, None] * x + angle.sin()[:, None, None] * y
    grating = torch.sin(0.6 * wave + phase[:, None, None])
    colour = torch.stack([(angle + shift).cos() for shift in (0.0, 2.1, 4.2)], 1)
    clean = 0.5 * grating[:, None] * colour[:, :, None, None]
    return TensorDataset(clean + 1.5 * torch.randn(clean.shape, generator=g), labels)


train_set, valid_set, test_set = pictures(480, 0), pictures(300, 1), pictures(600, 2)


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, x):
        return (x + self.norms[1](self.second(self.norms[0](self.first(x)).relu()))).relu()


def make(values):
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()
    deeper = nn.Conv2d(8, 16, 3, stride=2, padding=1), Block(16)
    head = (
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        cpmlho.Dropout("rate", fixed=values.get("rate")),
        nn.Linear(16, CLASSES),
    )
    module = nn.Sequential(*stem, Block(8), *deeper, *head)
    return module, torch.optim.SGD(module.parameters(), 0.05, momentum=0.9)


def train_loss(net, batch, h):
    images = cpmlho.shift(batch[0], h.distance, generator=h.generator)
    return F.cross_entropy(net(images), batch[1], reduction="none") + h.decay * net.l2()


def valid_loss(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1], reduction="none")


def batches():
    loader = DataLoader(train_set, 32, shuffle=True)
    return (batch for _ in range(EPOCHS) for batch in loader)


@torch.no_grad()
def losses(module):
    module.eval()
    return tuple(valid_loss(module, part[:]).mean().item() for part in (valid_set, test_set))


compare("residual", SPACE, make, train_loss, valid_loss, batches, DataLoader(valid_set, 64, shuffle=True), losses)
