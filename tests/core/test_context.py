"""What surrounds a step: the default device, gradients that are off, an iterator in place of a loader."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import cpmlho

X, Y = torch.linspace(-1, 1, 128).reshape(16, 8), torch.arange(16) % 3


def tuner(valid):
    """A small Tuner of weight decay."""
    net = torch.nn.Sequential(torch.nn.Linear(8, 8, device="cpu"), torch.nn.Linear(8, 3, device="cpu"))
    for parameter in net.parameters():
        torch.nn.init.constant_(parameter, 0.1)

    def train_loss(net, batch, h):
        return cross_entropy(net(batch[0]), batch[1], reduction="none") + h.decay * net.l2()

    def valid_loss(net, batch):
        return cross_entropy(net(batch[0]), batch[1])

    space = {"decay": cpmlho.LogUniform(1e-6, 1e-1)}
    return cpmlho.Tuner(net, space, train_loss, valid_loss, torch.optim.SGD(net.parameters(), 0.1), valid)


def tuned(valid=((X, Y),)):
    """The hyperparameter after ten steps, two of which update it."""
    made = tuner(valid)
    for _ in range(10):
        made.step((X, Y))
    return made.values


def test_the_default_device_of_torch_changes_nothing():
    """Scripts set it to a GPU; tensors on `meta` have no data, so that none can be made there by mistake."""
    expected = tuned()
    with torch.device("meta"):
        assert tuned() == expected


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_gradients_that_are_off_are_named(off):
    made = tuner([(X, Y)])
    with off(), pytest.raises(ValueError, match=r"gradients are off: call tuner.step outside torch.no_grad"):
        made.step((X, Y))


def test_an_iterator_in_place_of_a_loader_is_named():
    with pytest.raises(ValueError, match="an iterator gives each batch once: give the loader itself"):
        tuned(valid=iter([(X, Y)]))
