"""Tune dropout and weight decay of a transformer encoder on generated sequences of tokens.

Sequences of class 1 contain a marked pair of adjacent tokens; in class 0 the same two tokens are further apart. A tenth
of the training labels is wrong.
"""

import torch
import torch.nn.functional as F
from common import compare
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cpmlho

EPOCHS, TOKENS, LENGTH, WIDTH = 8, 20, 12, 32
SPACE = {"rate": cpmlho.Uniform(0, 0.7, start=0.2), "decay": cpmlho.LogUniform(1e-6, 1e-1, start=1e-4)}


def sequences(count, seed, wrong=0.0):
    g = torch.Generator().manual_seed(seed)
    tokens, labels = torch.randint(2, TOKENS, (count, LENGTH), generator=g), torch.arange(count) % 2
    first = torch.randint(0, LENGTH // 2, (count,), generator=g)
    gap = torch.where(labels == 1, 1, torch.randint(2, LENGTH // 2, (count,), generator=g))
    rows = torch.arange(count)
    tokens[rows, first], tokens[rows, first + gap] = 0, 1
    flipped = torch.rand(count, generator=g) < wrong
    return TensorDataset(tokens, torch.where(flipped, 1 - labels, labels))


train_set, valid_set, test_set = sequences(800, 0, wrong=0.1), sequences(400, 1), sequences(1000, 2)


class Encoder(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.embed, self.place = nn.Embedding(TOKENS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.drop, self.head = cpmlho.Dropout("rate", fixed=rate), nn.Linear(WIDTH, 2)

    def forward(self, tokens):
        embedded = self.embed(tokens) + self.place.weight
        return self.head(self.drop(self.encoder(self.drop(embedded)).amax(1)))


def make(values):
    torch.manual_seed(0)
    module = Encoder(values.get("rate"))
    return module, torch.optim.AdamW(module.parameters(), 2e-3, weight_decay=0)


def train_loss(net, batch, h):
    return F.cross_entropy(net(batch[0]), batch[1], reduction="none") + h.decay * net.l2()


def valid_loss(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1], reduction="none")


def batches():
    loader = DataLoader(train_set, 32, shuffle=True)
    return (batch for _ in range(EPOCHS) for batch in loader)


@torch.no_grad()
def losses(module):
    module.eval()
    return tuple(valid_loss(module, part[:]).mean().item() for part in (valid_set, test_set))


compare("transformer", SPACE, make, train_loss, valid_loss, batches, DataLoader(valid_set, 64, shuffle=True), losses)
