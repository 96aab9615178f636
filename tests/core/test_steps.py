"""The parameter update against the definition of the step: piece by piece, as on a CPU, and all parameters at once."""

import pytest
import torch
from cpmlho.core.steps import CACHED, Trainable, flat

from cpmlho.core import precision
from cpmlho.core.response import General


def layers(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = [((3, CACHED // 2), (3,)), ((5, 7), (5,))]  # the first W is one and a half pieces
    return [General(*(torch.randn(shape, generator=generator).to(dtype) for shape in pair)) for pair in shapes]


@pytest.mark.parametrize("by_pieces", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_descent_is_the_step_along_all_gradients_in_float32(dtype, by_pieces):
    gradients = [flat(layers(1, dtype)), flat(layers(2))]
    expected = [p - 0.1 * a.float() - 0.1 * b for p, a, b in zip(flat(layers(0)), *gradients, strict=True)]
    trained = Trainable(layers(0), dtype)
    assert trained.by_pieces  # on a CPU
    trained.by_pieces = by_pieces
    trained.descend(0.1, *gradients)
    torch.testing.assert_close(flat(trained.masters), expected)
    for working, master in zip(flat(trained.working), flat(trained.masters), strict=True):
        assert working.dtype == dtype
        assert torch.equal(working, master.to(dtype))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ways_of_descent_come_to_the_same_bits(dtype, native, momentum, monkeypatch):
    monkeypatch.setattr(precision, "native_bfloat16", lambda device: native)
    found = []
    for by_pieces in (True, False):
        trained = Trainable(layers(0), dtype, momentum)
        trained.by_pieces = by_pieces
        for step in range(3):
            gradients = [g.to(w.dtype) for g, w in zip(flat(layers(step + 1)), flat(trained.working), strict=True)]
            trained.descend(0.1, gradients, flat(layers(step + 9)))
        found.append([*flat(trained.masters), *flat(trained.working), *trained.velocities])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_transposed_gradient_is_taken_as_it_lies():
    trained = Trainable([General(torch.zeros(4, 6), torch.zeros(4))], torch.float32)
    gradient = torch.arange(24.0).reshape(6, 4).t()
    trained.descend(1.0, [gradient, torch.ones(4)])
    assert torch.equal(trained.masters[0].W, -gradient)
