"""Cutting planes against their definition (eqs. 10-14), with gradients from autograd."""

from collections import namedtuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cpmlho.core.options import CPMLHO
from cpmlho.core.planes import CuttingPlanes, distance, gap
from cpmlho.core.response import General, Response
from cpmlho.core.space import Space

Uniform = namedtuple("Uniform", ["low", "high", "start"])
CPU = torch.device("cpu")
KINDS = ["l2", "l1", "mean_l1"]
LAMBDA = torch.tensor([-2.9, -1.0, 0.5], dtype=torch.float64)


def planes(**changes):
    return CuttingPlanes(CPMLHO(**changes), CPU)


def parameters(seed=0):
    """Two layers, one of them a convolution, in float64 with a map that is not zero."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    shapes = [(3, 4), (5, 2, 3, 3)]
    general = [General(normal(*shape), normal(shape[0])) for shape in shapes]
    response = [Response(normal(*shape), normal(shape[0]), normal(2 * shape[0], 3)) for shape in shapes]
    return general, response


def w_h(response, at):
    """(H_w lambda) R row by row, written out."""
    result = []
    for R, _, H in response:
        out = torch.empty_like(R)
        for i in range(len(R)):
            out[i] = (H[i] * at).sum() * R[i]
        result.append(out)
    return result


def g_of(w_e, w_h, kind):
    v = torch.cat([(e - h).flatten() for e, h in zip(w_e, w_h, strict=True)])
    return {"l2": v.square().sum().sqrt(), "l1": v.abs().sum(), "mean_l1": v.abs().mean()}[kind]


def test_gap_is_general_minus_response():
    general, response = parameters()
    for ours, e, h in zip(gap(general, response, LAMBDA), general, w_h(response, LAMBDA), strict=True):
        torch.testing.assert_close(ours, e.W - h)


@pytest.mark.parametrize("kind", KINDS)
def test_distance_and_its_gradient(kind):
    general, response = parameters()
    v = [x.requires_grad_() for x in gap(general, response, LAMBDA)]
    g, normal = distance(v, kind)
    expected = g_of(v, [torch.zeros_like(x) for x in v], kind)
    torch.testing.assert_close(g, expected)
    for ours, theirs in zip(normal, torch.autograd.grad(expected, v), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_distance_at_the_kink_has_the_zero_subgradient():
    g, normal = distance([torch.zeros(2, 2)], "l2")
    assert g == 0
    assert not normal[0].any()


@pytest.mark.parametrize("kind", KINDS)
def test_plane_is_its_definition(kind):
    """phi_k = g_k + <dg/dw_e, w_e - w_e^k> + <dg/dw_h, w_h - w_h^k> - eps^2, away from iterate k."""
    general, response = parameters()
    set_ = planes(g=kind)
    set_.add(gap(general, response, LAMBDA))
    e_k = [layer.W.clone().requires_grad_() for layer in general]
    h_k = [x.detach().requires_grad_() for x in w_h(response, LAMBDA)]
    g_k = g_of(e_k, h_k, kind)
    gradients = torch.autograd.grad(g_k, e_k + h_k)
    other_general, other_response = parameters(seed=1)
    e, h = [layer.W for layer in other_general], w_h(other_response, LAMBDA)
    moved = [new - old for new, old in zip([*e, *h], [*e_k, *h_k], strict=True)]
    expected = g_k + sum((n * x).sum() for n, x in zip(gradients, moved, strict=True)) - 1e-4
    torch.testing.assert_close(set_.values(gap(other_general, other_response, LAMBDA))[0], expected)
    at_k = set_.values(gap(general, response, LAMBDA))[0]
    torch.testing.assert_close(at_k, g_k - 1e-4)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(1, 10**6), scale=st.floats(1e-3, 1e3), kind=st.sampled_from(KINDS))
def test_planes_never_lie_above_g(seed, scale, kind):
    general, response = parameters()
    set_ = planes(g=kind, eps_sq=0.0)
    set_.add(gap(general, response, LAMBDA))
    v = [x * scale for x in gap(*parameters(seed), LAMBDA)]
    g = distance(v, kind)[0]
    assert set_.values(v)[0] <= g * (1 + 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_autograds(kind):
    general, response = parameters()
    set_ = planes(g=kind)
    for seed in (0, 5, 6):
        set_.add(gap(*parameters(seed), LAMBDA))
    set_.mu = torch.tensor([0.5, 0.2, 1.5], dtype=torch.float64)
    set_.ascend(gap(general, response, LAMBDA))
    flat = [p.clone().requires_grad_() for layer in response for p in layer]
    leaves = [Response(*flat[i : i + 3]) for i in range(0, len(flat), 3)]
    v = [e.W - h for e, h in zip(general, w_h(leaves, LAMBDA), strict=True)]
    expected = torch.autograd.grad((set_.mu * set_.values(v)).sum(), flat, materialize_grads=True)
    ours = [p for layer in set_.gradient(response, LAMBDA) for p in layer]
    assert any(p.abs().max() > 0.01 for p in ours)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_dual_ascent_is_projected_and_zero_stays_zero():
    general, response = parameters()
    v = gap(general, response, LAMBDA)
    set_ = planes(mu_init=0.1, dual_step=0.01)
    set_.add(v)
    set_.add([-x for x in v])
    first, second = set_.values(v).tolist()
    assert first > 0 > second
    expected = [0.1, 0.1]
    for _ in range(30):
        set_.ascend(v)
        expected = [
            max(0.0, m + 0.01 * phi) if m > 0 else 0.0 for m, phi in zip(expected, (first, second), strict=True)
        ]
        assert set_.mu.tolist() == pytest.approx(expected)
    assert expected[1] == 0
    opposite = [-x for x in v]  # now the dropped plane's phi is positive
    set_.ascend(opposite)
    assert set_.mu[1] == 0
    set_.add(v)
    assert len(set_) == 2  # and the next cut drops it
    assert [state.plane for state in set_.states(1, 1, v, 0.0)] == [1, 3]


def test_at_most_max_planes_are_kept_the_newest():
    v = gap(*parameters(), LAMBDA)
    set_ = planes(max_planes=3)
    for _ in range(5):
        set_.add(v)
    assert [state.plane for state in set_.states(1, 1, v, 0.0)] == [3, 4, 5]
    one = planes(max_planes=1)
    one.add(v)
    one.add(v)
    assert [state.plane for state in one.states(1, 1, v, 0.0)] == [2]


def test_fixed_multipliers_do_not_move():
    v = gap(*parameters(), LAMBDA)
    set_ = planes(multiplier="fixed", mu_init=0.25)
    set_.add(v)
    set_.ascend(v)
    assert set_.mu.tolist() == [0.25]


def test_period_and_coordinates():
    space = Space.of(dict.fromkeys(["a", "b", "c"], Uniform(0.0, 0.95, 0.05)))
    raw = space.raw(space.start)
    assert [epoch for epoch in range(1, 7) if planes(cut_every=3).due(epoch)] == [3, 6]
    assert torch.equal(planes(wh_at="raw").coordinates(space, raw), raw)
    torch.testing.assert_close(planes(wh_at="value").coordinates(space, raw), torch.full((3,), 0.05))
