"""Ranges and augmentation."""

import pytest
import torch

import cpmlho
from cpmlho.core.augment import per_row


@pytest.mark.parametrize("range_", [cpmlho.Uniform(-1, 3), cpmlho.LogUniform(1e-6, 1e-1), cpmlho.LogUniform(2, 8, 7)])
def test_raw_and_value_are_inverse(range_):
    raw = torch.tensor(range_.raw(range_.first), dtype=torch.float64)
    assert range_.value(raw).item() == pytest.approx(range_.first)
    assert range_.value(torch.tensor(-50.0)).item() == pytest.approx(range_.low)
    assert range_.value(torch.tensor(50.0)).item() == pytest.approx(range_.high)


def test_the_start_is_the_middle_of_the_scale():
    assert cpmlho.Uniform(0, 3).first == 1.5
    assert cpmlho.LogUniform(1e-4, 1e-2).first == pytest.approx(1e-3)
    assert cpmlho.LogUniform(1, 100).value(torch.zeros(())).item() == pytest.approx(10)


def test_a_shift_moves_each_image_by_its_own_distance():
    images = torch.zeros(3000, 2, 9, 9)
    images[:, :, 4, 4] = 1
    distance = torch.tensor([0.0, 2.0, 9.0]).repeat_interleave(1000)
    moved = cpmlho.shift(images, distance, generator=torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert torch.equal(moved[:1000], images[:1000])
    where = moved[1000:2000, 0].flatten(1).argmax(1)
    offsets = torch.stack([where // 9 - 4, where % 9 - 4])
    assert offsets.abs().max() == 2
    assert {tuple(each) for each in offsets.T.tolist()} == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert (moved[2000:].flatten(1).sum(1) == 0).any()  # out of the picture, and nothing wraps around


def test_a_shift_is_that_of_the_picture():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    seen = {
        tuple(cpmlho.shift(image, torch.ones(1), generator=torch.Generator().manual_seed(i)).flatten().tolist())
        for i in range(60)
    }
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    assert seen == {tuple(padded[..., i : i + 3, j : j + 4].flatten().tolist()) for i in range(3) for j in range(3)}


def test_noise_has_a_scale_an_example():
    scale = torch.tensor([0.0, 0.1, 3.0])
    found = cpmlho.noise(torch.zeros(3, 20, 500), scale, generator=torch.Generator().manual_seed(0)).flatten(1).std(1)
    torch.testing.assert_close(found, scale, rtol=0.05, atol=0)


def test_cutout_draws_from_the_global_generator_if_none_is_given():
    images, two = torch.ones(4, 3, 12, 12), torch.full((4,), 2.0)
    torch.manual_seed(0)
    first, second = (cpmlho.cutout(images, 3 * two, two) for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(cpmlho.cutout(images, 3 * two, two), first)
    assert not torch.equal(first, second)
    assert (first == 0).any()


def test_rows_of_an_example_follow_each_other():
    assert per_row(torch.tensor([1, 2]), 6, "x").tolist() == [1, 1, 1, 2, 2, 2]
    with pytest.raises(ValueError, match="x works on 5 rows of a batch of 2"):
        per_row(torch.tensor([1, 2]), 5, "x")
