"""Augmentation with a strength for each example, against loops over the examples with the same draws."""

import pytest
import scipy.stats
import torch
import torch.nn.functional as F

import cpmlho
from cpmlho.core.augment import _random_levels as random_levels
from cpmlho.core.augment import cutout, dropout_mask, per_row


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(6, 51), (6, 5, 4, 4)])
def test_dropout_is_the_loop_over_examples_and_units(shape):
    rates = torch.tensor([0.0, 0.1, 0.3, 0.5, 0.9, 0.94])
    mask = dropout_mask(rates, torch.empty(shape), generator())
    levels = random_levels(shape[:2], generator(), rates.device)
    for i in range(shape[0]):
        dropped = round(rates[i].item() * 65536)
        for j in range(shape[1]):
            expected = 0.0 if levels[i, j] < dropped else 65536 / (65536 - dropped)
            assert torch.allclose(mask[i, j], torch.tensor(expected)), (i, j)
    assert mask.shape == shape[:2] + (1,) * (len(shape) - 2)  # whole channels are dropped


def test_levels_are_the_sixteen_bit_parts_of_the_draws():
    levels = random_levels((7, 3), generator(), torch.device("cpu"))
    draws = torch.empty(6, dtype=torch.int64).random_(-(2**63), None, generator=generator())
    parts = [(draw >> shift) & 0xFFFF for draw in draws.tolist() for shift in (0, 16, 32, 48)]
    signed = [part - 65536 if part >= 32768 else part for part in parts]  # two's complement
    assert levels.flatten().tolist() == [part + 32768 for part in signed][:21]


def test_levels_are_uniform():
    levels = random_levels((400_000,), generator(), torch.device("cpu"))
    counts = torch.bincount(levels.to(torch.int64) // 4096, minlength=16)
    assert len(counts) == 16
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert scipy.stats.chisquare(torch.bincount(levels.to(torch.int64) % 16).numpy()).pvalue > 1e-3


def test_dropout_drops_at_its_rate_and_keeps_the_mean():
    rates = torch.tensor([0.0, 0.25, 0.8])
    mask = dropout_mask(rates, torch.empty(3, 200_000), generator())
    torch.testing.assert_close((mask == 0).float().mean(1), rates, atol=0.005, rtol=0)
    torch.testing.assert_close(mask.mean(1), torch.ones(3), atol=0.02, rtol=0)


def test_channel_dropout_of_a_one_channel_image_blanks_it_whole():
    mask = dropout_mask(torch.full((1000,), 0.3), torch.empty(1000, 1, 28, 28), generator())
    images = torch.ones(1000, 1, 28, 28) * mask
    kept = images.flatten(1).sum(1)
    assert set(kept.gt(0).tolist()) == {True, False}
    assert ((kept == 0) | torch.isclose(kept, torch.tensor(784 / 0.7))).all()


def ends(centre, half, size):
    """The first row of a hole and the one after its last, as the published code of Delta-STN has it (R17)."""
    return tuple(int(min(max(centre + sign * half, 0), size)) for sign in (-1, 1))


@pytest.mark.parametrize("length", range(2, 25))
def test_a_hole_of_any_length_around_any_centre_is_the_published_codes(length, monkeypatch):
    size = 28
    centres = torch.arange(size).view(-1, 1, 1)
    monkeypatch.setattr(torch, "randint", lambda *shape, **where: centres)
    images = torch.ones(size, 1, size, size)
    holes = cutout(images, torch.full((size,), length + 0.5), torch.ones(size), max_holes=1, generator=generator()) == 0
    for y in range(size):
        top, bottom = ends(y, length / 2, size)
        expected = torch.zeros(size, size, dtype=torch.bool)
        expected[top:bottom, top:bottom] = True
        assert torch.equal(holes[y, 0], expected), y
        assert length / 2 > min(y, size - y) or bottom - top == length


@pytest.mark.parametrize(("height", "width"), [(28, 28), (9, 12)])
def test_cutout_is_the_loop_over_examples_and_holes(height, width):
    batch, most = 40, 5
    images = torch.rand(batch, 2, height, width, generator=generator(1)) + 0.5
    length = torch.rand(batch, generator=generator(2)) * 22 + 2
    holes = torch.rand(batch, generator=generator(3)) * 5
    result = cutout(images, length, holes, max_holes=most, generator=generator(4))
    draws = generator(4)
    rows = torch.randint(height, (batch, most, 1), generator=draws)
    columns = torch.randint(width, (batch, most, 1), generator=draws)
    for i in range(batch):
        expected = images[i].clone()
        half = int(length[i]) / 2
        for k in range(int(holes[i])):
            y, x = int(rows[i, k]), int(columns[i, k])
            (top, bottom), (left, right) = (ends(y, half, height), ends(x, half, width))
            expected[:, top:bottom, left:right] = 0
        assert torch.equal(result[i], expected), i
    assert (result == 0).any()


def test_no_hole_leaves_the_image():
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(cutout(images, torch.full((3,), 4.0), torch.full((3,), 0.99), generator=generator()), images)


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
    with pytest.raises(ValueError, match="x gets 5 rows from a batch of 2"):
        per_row(torch.tensor([1, 2]), 5, "x")


def test_smoothing_for_each_example_equals_torchs():
    logits, s = torch.randn(8, 3, 5, dtype=torch.float64), torch.linspace(0, 0.9, 8, dtype=torch.float64)
    labels = torch.randint(3, (8, 5))
    labels[2, 1:3] = -100
    found = cpmlho.cross_entropy(logits, labels, label_smoothing=s)
    each = zip(logits, labels, s.tolist(), strict=True)
    expected = [F.cross_entropy(x[None], y[None], label_smoothing=a) for x, y, a in each]
    torch.testing.assert_close(found, torch.stack(expected))
    flat = cpmlho.cross_entropy(logits[..., 0], labels[:, 0], label_smoothing=0.2)
    expected = F.cross_entropy(logits[..., 0], labels[:, 0], reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(flat, expected)
