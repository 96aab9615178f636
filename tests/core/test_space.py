"""The space: its transform, its bounds, its round trip."""

import math

import torch
from cpmlho.core.space import Space
from hypothesis import given
from hypothesis import strategies as st

from cpmlho.study.settings import Hyperparameter

SPACE = Space.of(
    {
        "dropout0": Hyperparameter(low=0.0, high=0.95, start=0.05),
        "cutout_length": Hyperparameter(low=2.0, high=24.0, start=4.0),
    }
)


def test_bounds_are_reached_only_at_infinity():
    assert torch.equal(SPACE.values(torch.full((2,), -math.inf)), SPACE.low)
    assert torch.equal(SPACE.values(torch.full((2,), math.inf)), SPACE.high)
    assert SPACE.raw(SPACE.low).tolist() == [-math.inf] * 2
    assert SPACE.raw(SPACE.high).tolist() == [math.inf] * 2


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_round_trip(a, b):
    values = SPACE.from_unit(torch.tensor([a, b]))
    torch.testing.assert_close(SPACE.values(SPACE.raw(values)), values, rtol=1e-5, atol=1e-6)


@given(st.floats(-8, 8), st.floats(0.01, 3))
def test_values_rise_with_lambda_and_stay_inside(raw, step):
    low, high = SPACE.values(torch.tensor([raw, raw])), SPACE.values(torch.tensor([raw + step, raw + step]))
    assert (low < high).all()
    assert (low > SPACE.low).all()
    assert (high < SPACE.high).all()


def test_transform_is_the_stretched_sigmoid():
    raw = torch.tensor([[0.3, -1.2], [2.0, 0.0]])
    for row in range(2):
        for column, (low, high) in enumerate([(0.0, 0.95), (2.0, 24.0)]):
            expected = low + (high - low) / (1 + math.exp(-raw[row, column].item()))
            assert math.isclose(SPACE.values(raw)[row, column].item(), expected, rel_tol=1e-6)


def test_start_has_its_name():
    assert SPACE.named(SPACE.values(SPACE.raw(SPACE.start))).keys() == {"dropout0", "cutout_length"}
    torch.testing.assert_close(SPACE.values(SPACE.raw(SPACE.start)), torch.tensor([0.05, 4.0]))
