"""Ranges and spaces: their transforms, bounds and round trips."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cpmlho
from cpmlho.core.spaces import Space, Values

SPACE = Space({"rate": cpmlho.Uniform(0.0, 0.95, 0.05), "decay": cpmlho.LogUniform(1e-4, 1e-2)})


@given(lam=st.floats(-8, 8), step=st.floats(0.01, 3))
def test_values_rise_with_lambda_inside_their_bounds(lam, step):
    low, high = (SPACE.value(torch.full((2,), x, dtype=torch.float64)) for x in (lam, lam + step))
    assert (low < high).all()
    for name, each in SPACE.items():
        value = SPACE.named(low)[name]
        assert each.low < value < each.high
        assert each.lam(value) == pytest.approx(lam, rel=1e-6, abs=1e-6)
        assert each.at(torch.tensor(each.unit(value), dtype=torch.float64)).item() == pytest.approx(value)


def test_the_transform_is_the_stretched_sigmoid_of_the_value_or_its_logarithm():
    for lam in (-1.2, 0.0, 2.0):
        sigmoid = 1 / (1 + math.exp(-lam))
        found = SPACE.value(torch.tensor([[lam, lam]]))[0].tolist()
        assert found == pytest.approx([0.95 * sigmoid, 10 ** (-4 + 2 * sigmoid)], rel=1e-5)
    assert SPACE.value(torch.full((2,), -math.inf)).tolist() == pytest.approx([0.0, 1e-4])
    assert SPACE.value(torch.full((2,), math.inf)).tolist() == pytest.approx([0.95, 1e-2])


def test_tuning_starts_at_the_start_or_in_the_middle_of_the_scale():
    found = SPACE.named(SPACE.value(torch.tensor(SPACE.start())))
    assert found == {"rate": pytest.approx(0.05), "decay": pytest.approx(1e-3)}
    assert cpmlho.Uniform(0, 3).first == 1.5


def test_values_are_read_by_name():
    h = Values(SPACE, torch.tensor([[0.1, 0.2], [0.3, 0.4]]), torch.Generator())
    torch.testing.assert_close(h.decay, torch.tensor([0.2, 0.4]))
    assert h["rate"] is h.rate
    assert list(h) == ["rate", "decay"]
    assert "rate" in h
    assert "dcay" not in h
    with pytest.raises(KeyError, match="no hyperparameter 'dcay'; it has rate, decay"):
        h["dcay"]
