"""Cutting planes against their definition (eqs. 10-14), with gradients from autograd and finite differences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cpmlho.core.options import CPMLHO
from cpmlho.core.planes import CuttingPlanes, PlaneSet, distance, gap
from cpmlho.core.response import General, Response
from cpmlho.core.spaces import Space, Uniform

CPU = torch.device("cpu")
KINDS = ["l2", "squared", "l1", "mean_l1"]
CONSTRAINTS = ["raw", "value", "response_weight", "displaced"]
LAMBDA = torch.tensor([-2.9, -1.0, 0.5], dtype=torch.float64)
USED = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
SPACE = Space({name: Uniform(0.0, 0.95, 0.05) for name in "abc"})


def planes(**changes):
    """On the two layers of `parameters`, with the first edition's multipliers and force unless they are given."""
    first = {"multiplier": "dual_ascent", "mu_init": 0.22, "dual_step": 1e-6, "max_planes": 3}
    first |= {"cut_steps": None, "force": "always"}
    return CuttingPlanes(CPMLHO(**(first | changes)), 2, CPU)


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
    """(H_w lambda) R row by row, written out; R itself where there are no coordinates."""
    if at is None:
        return [R for R, _, _ in response]
    return [torch.stack([(H[i] * at).sum() * R[i] for i in range(len(R))]) for R, _, H in response]


def force(held, v):
    """What a set of planes pulls with at the gap v, as general weights v and a response of zero have it."""
    general = [General(x, x.new_zeros(len(x))) for x in v]
    response = [Response(torch.zeros_like(x), x.new_zeros(len(x)), x.new_zeros(2 * len(x), 1)) for x in v]
    return [pull.mu * pull.direction for pull in held.pulls(general, response, [x.new_ones(len(x)) for x in v])]


def g_of(v, kind):
    v = torch.cat([x.flatten() for x in v])
    return {
        "l2": v.square().sum().sqrt(),
        "squared": v.square().sum(),
        "l1": v.abs().sum(),
        "mean_l1": v.abs().mean(),
    }[kind]


def layered(per_layer):
    return [[0], [1]] if per_layer else [[0, 1]]


@pytest.mark.parametrize("at", [LAMBDA, None], ids=["at lambda", "R alone"])
def test_gap_is_general_minus_response(at):
    general, response = parameters()
    for ours, e, h in zip(gap(general, response, at), general, w_h(response, at), strict=True):
        torch.testing.assert_close(ours, e.W - h)


@pytest.mark.parametrize("layers", [[0, 1], [0], [1]], ids=["both layers", "the first", "the second"])
@pytest.mark.parametrize("kind", KINDS)
def test_normal_is_autograds_and_the_finite_difference(kind, layers):
    v = [gap(*parameters(), LAMBDA)[i] for i in layers]
    g, normal = distance(v, kind)
    leaves = [x.clone().requires_grad_() for x in v]
    expected = g_of(leaves, kind)
    torch.testing.assert_close(g, expected.detach())
    for ours, theirs in zip(normal, torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, theirs)
    h = 1e-6
    for layer, x in enumerate(v):
        for place in range(0, x.numel(), 7):
            ends = []
            for sign in (1, -1):
                moved = [each.clone() for each in v]
                moved[layer].view(-1)[place] += sign * h
                ends.append(distance(moved, kind)[0])
            difference = (ends[0] - ends[1]) / (2 * h)
            torch.testing.assert_close(normal[layer].view(-1)[place], difference, rtol=1e-5, atol=1e-7)


def test_distance_at_the_kink_has_the_zero_subgradient():
    for kind in KINDS:
        g, normal = distance([torch.zeros(2, 2)], kind)
        assert g == 0
        assert not normal[0].any()


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_plane_is_its_definition(kind, per_layer):
    """phi_k = g_k + <dg/dw_e, w_e - w_e^k> + <dg/dw_h, w_h - w_h^k> - eps^2, away from iterate k."""
    general, response = parameters()
    held = planes(g=kind, per_layer=per_layer, eps_sq=0.03)
    held.add(gap(general, response, LAMBDA))
    other_general, other_response = parameters(seed=1)
    v = gap(other_general, other_response, LAMBDA)
    for each, layers in zip(held.sets, layered(per_layer), strict=True):
        e_k = [general[i].W.clone().requires_grad_() for i in layers]
        h_k = [w_h(response, LAMBDA)[i].requires_grad_() for i in layers]
        g_k = g_of([e - h for e, h in zip(e_k, h_k, strict=True)], kind)
        gradients = torch.autograd.grad(g_k, e_k + h_k)
        e, h = [other_general[i].W for i in layers], [w_h(other_response, LAMBDA)[i] for i in layers]
        moved = [(new - old).detach() for new, old in zip([*e, *h], [*e_k, *h_k], strict=True)]
        expected = g_k.detach() + sum((n * x).sum() for n, x in zip(gradients, moved, strict=True)) - 0.03
        torch.testing.assert_close(each.values([v[i] for i in layers])[0], expected)
        at_k = each.values([gap(general, response, LAMBDA)[i] for i in layers])[0]
        torch.testing.assert_close(at_k, g_k.detach() - 0.03)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(1, 10**6),
    scale=st.floats(1e-3, 1e3),
    kind=st.sampled_from(KINDS),
    per_layer=st.booleans(),
)
def test_planes_never_lie_above_g(seed, scale, kind, per_layer):
    held = planes(g=kind, eps_sq=0.0, per_layer=per_layer)
    held.add(gap(*parameters(), LAMBDA))
    v = [x * scale for x in gap(*parameters(seed), LAMBDA)]
    for each, layers in zip(held.sets, layered(per_layer), strict=True):
        own = [v[i] for i in layers]
        assert each.values(own)[0] <= distance(own, kind)[0] * (1 + 1e-9)


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_autograds(kind, constraint, per_layer):
    general, response = parameters()
    held = planes(g=kind, constraint=constraint, per_layer=per_layer)
    at = held.coordinates(SPACE, LAMBDA, USED)
    for seed in (0, 5, 6):
        held.add(gap(*parameters(seed), at))
    for each in held.sets:
        each.mu = torch.tensor([0.5, 0.2, 1.5], dtype=torch.float64)
    flat = [p.clone().requires_grad_() for layer in response for p in layer]
    leaves = [Response(*flat[i : i + 3]) for i in range(0, len(flat), 3)]
    written = {"raw": LAMBDA, "value": 0.95 * torch.sigmoid(LAMBDA), "response_weight": None, "displaced": USED}
    v = [e.W - h for e, h in zip(general, w_h(leaves, written[constraint]), strict=True)]
    sets = zip(held.sets, layered(per_layer), strict=True)
    penalty = sum((each.mu * each.values([v[i] for i in layers])).sum() for each, layers in sets)
    expected = torch.autograd.grad(penalty, flat, materialize_grads=True)
    ours = held.constrained([None] * 6, general, response, at)
    loss = [torch.randn_like(p) for p in ours]
    for total, own, added in zip(held.constrained(loss, general, response, at), loss, ours, strict=True):
        torch.testing.assert_close(total, own + added)
    assert all(ours[i].abs().max() > 1e-3 for i in (0, 3))  # R
    assert not any(ours[i].any() for i in (1, 4))  # biases are not held
    assert any(ours[i].any() for i in (2, 5)) == (constraint != "response_weight")  # H
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


# The force


def one(**changes):
    """A plane of |x| on one layer, taken at (3, 4): the normal is (0.6, 0.8), and phi = <n, v> - eps^2."""
    held = PlaneSet(CPMLHO(mu_init=0.5, **changes), CPU)
    held.add([torch.tensor([[3.0, 4.0]], dtype=torch.float64)])
    return held


INSIDE, ON, OUTSIDE = ([torch.tensor([[x, 0.0]], dtype=torch.float64)] for x in (-1.0, 0.0, 1.0))
NORMAL = torch.tensor([[0.6, 0.8]], dtype=torch.float64)


def test_a_satisfied_constraint_exerts_no_force():
    held = one(eps_sq=0.0)
    assert (held.values(INSIDE) < 0).all()
    assert (held.values(OUTSIDE) > 0).all()
    assert not force(held, INSIDE)[0].any()
    torch.testing.assert_close(force(held, OUTSIDE)[0], 0.5 * NORMAL)
    exact = PlaneSet(CPMLHO(mu_init=0.5, eps_sq=0.0, g="l1"), CPU)
    exact.add(OUTSIDE)
    assert exact.values(ON).item() == 0  # on the very edge
    assert not force(exact, ON)[0].any()


def test_each_plane_pulls_or_not_by_its_own_value():
    held = one(eps_sq=0.0, max_planes=2)
    held.add([torch.tensor([[-2.0, 0.0]], dtype=torch.float64)])  # phi = -v_1
    torch.testing.assert_close(force(held, OUTSIDE)[0], 0.5 * NORMAL)
    torch.testing.assert_close(force(held, INSIDE)[0], torch.tensor([[-0.5, 0.0]], dtype=torch.float64))


def test_a_force_that_always_pulls_does_so_inside_too():
    held = one(force="always")
    for v in (INSIDE, ON, OUTSIDE):
        torch.testing.assert_close(force(held, v)[0], 0.5 * NORMAL)


def test_no_gradient_where_the_constraint_holds():
    general, response = parameters()
    held = planes(force="violated", constraint="response_weight")
    held.add(gap(general, response, None))
    inside = [General(2 * h.R - e.W, e.b) for e, h in zip(general, response, strict=True)]  # the gap turned round
    assert not any(p.any() for p in held.constrained([None] * 6, inside, response, None))
    assert any(p.any() for p in held.constrained([None] * 6, general, response, None))


# Multipliers


def test_dual_ascent_is_projected_and_zero_is_final():
    v = gap(*parameters(), LAMBDA)
    held = planes(mu_init=0.1, dual_step=0.01)
    (each,) = held.sets
    held.add(v)
    held.add([-x for x in v])
    first, second = each.values(v).tolist()
    assert first > 0 > second
    expected = [0.1, 0.1]
    for _ in range(30):
        held.ascend(v)
        expected = [
            max(0.0, m + 0.01 * phi) if m > 0 else 0.0 for m, phi in zip(expected, (first, second), strict=True)
        ]
        assert each.mu.tolist() == pytest.approx(expected)
    assert expected[1] == 0
    held.ascend([-x for x in v])  # now the second plane's phi is positive
    assert each.mu[1] == 0
    held.add(v)
    held.ascend([-x for x in v])
    assert each.mu[1] == 0


def test_adbo_starts_at_zero_and_its_damping_fades():
    v = gap(*parameters(), LAMBDA)
    held = planes(multiplier="adbo", mu_init=3.0, dual_step=0.01)
    (each,) = held.sets
    held.add(v)
    assert each.mu.tolist() == [0.0]
    held.add([-x for x in v])
    assert each.mu.tolist() == [0.0, 0.0]
    expected = [0.0, 0.0]
    for t in range(1, 40):
        at = [x * (-1) ** (t // 10) for x in v]  # each plane is violated for a time, and for a time not
        phis = each.values(at).tolist()
        held.ascend(at)
        expected = [max(0.0, (1 - t**-0.25) * m + 0.01 * phi) for m, phi in zip(expected, phis, strict=True)]
        if t < 10:
            expected[0] = 0.0  # it had no multiplier when the second plane came, and was forgotten then
        assert each.mu[1].item() == pytest.approx(expected[1])
    assert each.mu[0] == 0


def test_adbo_forgets_a_plane_without_multiplier_at_the_next_cut_alone():
    v = gap(*parameters(), LAMBDA)
    opposite = [-x for x in v]
    held = planes(multiplier="adbo", dual_step=0.01)
    (each,) = held.sets
    held.add(v)
    held.ascend(v)
    assert each.mu[0] > 0
    for _ in range(20):
        held.ascend(opposite)
    assert each.mu[0] == 0
    held.ascend(v)
    assert each.mu[0] > 0  # it came back, as no cut came between
    kept = each.mu[0].item()
    held.add(v)
    assert each.mu.tolist() == [kept, 0.0]
    for _ in range(20):
        held.ascend(opposite)
    held.add(v)  # forgets both
    held.ascend(v)
    assert (each.mu > 0).tolist() == [False, False, True]


@pytest.mark.parametrize(("mu", "forgotten"), [(0.9e-10, True), (1.1e-10, False)])
def test_adbo_forgets_below_its_threshold(mu, forgotten):
    v = gap(*parameters(), LAMBDA)
    held = planes(multiplier="adbo", dual_step=0.01)
    held.add(v)
    held.sets[0].mu = torch.tensor([mu], dtype=torch.float64)
    held.add(v)
    held.ascend(v)
    assert (held.sets[0].mu[0] == 0) == forgotten


def test_fixed_multipliers_do_not_move():
    v = gap(*parameters(), LAMBDA)
    held = planes(multiplier="fixed", mu_init=0.25)
    held.add(v)
    held.ascend(v)
    assert held.sets[0].mu.tolist() == [0.25]


def test_the_multipliers_of_layers_are_their_own():
    v = gap(*parameters(), LAMBDA)
    held = planes(per_layer=True, mu_init=0.1, dual_step=0.01)
    held.add(v)
    held.ascend([v[0], -v[1]])
    first, second = (each.mu.item() for each in held.sets)
    assert first == pytest.approx(0.1 + 0.01 * held.sets[0].values([v[0]]).item())
    assert second == pytest.approx(max(0.0, 0.1 + 0.01 * held.sets[1].values([-v[1]]).item()))
    assert first > 0.1 > second


# At the known optimum of min |x - a|^2 with |x - b| <= 1 and |a - b| = 1.5: (a - b) / 1.5 from b, its multiplier 1.

B = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
A = B + torch.tensor([[1.0, 1.0, 0.5]], dtype=torch.float64)
OPTIMUM = B + (A - B) / 1.5


def solve(options, cut_every, steps=1500, rate=0.02):
    """x after so many gradient steps; its gap to b, and the planes."""
    held, x = PlaneSet(CPMLHO(eps_sq=1.0, **options), CPU), B + torch.tensor([[-2.0, 1.0, 1.0]], dtype=torch.float64)
    for step in range(steps):
        if step % cut_every == 0:
            held.add([x - B])
        x = x - rate * (2 * (x - A) + force(held, [x - B])[0])
        held.ascend([x - B])
    return x, held


@pytest.mark.parametrize(
    ("options", "cut_every", "tolerance"),
    [
        ({"multiplier": "fixed", "mu_init": 2.0}, 1, 0.05),  # above 1: an exact penalty, within a step's length
        ({"multiplier": "dual_ascent", "mu_init": 0.5, "dual_step": 0.05, "max_planes": 20}, 150, 0.05),
        ({"multiplier": "adbo", "dual_step": 1.0, "max_planes": 20}, 150, 0.2),  # t^(-1/4) is 0.16 at the end
    ],
    ids=["fixed", "dual_ascent", "adbo"],
)
def test_each_multiplier_reaches_the_constrained_optimum(options, cut_every, tolerance):
    x, _ = solve(options, cut_every)
    torch.testing.assert_close(x, OPTIMUM, rtol=0, atol=tolerance)
    free = torch.linalg.vector_norm(A - OPTIMUM).item()
    assert torch.linalg.vector_norm(x - A).item() == pytest.approx(free, abs=tolerance)


def test_a_penalty_that_is_too_weak_does_not():
    x, _ = solve({"multiplier": "fixed", "mu_init": 0.2}, 1)
    assert torch.linalg.vector_norm(x - B) > 1.3


# Which planes there are


def test_at_most_max_planes_are_kept_the_newest():
    v = gap(*parameters(), LAMBDA)
    held = planes(max_planes=3)
    for _ in range(5):
        held.add(v)
    assert [state.plane for state in held.states(1, 1, v, 0.0)] == [3, 4, 5]
    newest, other = planes(max_planes=1), gap(*parameters(1), LAMBDA)
    newest.add(v)
    newest.add(other)
    assert [state.plane for state in newest.states(1, 1, v, 0.0)] == [2]
    alone = planes(max_planes=1)
    alone.add(other)
    assert torch.equal(newest.sets[0].values(v), alone.sets[0].values(v))
    assert newest.sets[0].mu.tolist() == [0.22]


def test_planes_whose_multiplier_has_come_to_stay_at_0_go_first():
    """Of five planes the second dies on the way: an older one that still pulls keeps its place."""
    v = gap(*parameters(), LAMBDA)
    held = planes(max_planes=3)
    for number in range(1, 6):
        held.add(v)
        if number == 2:
            each = held.sets[0]
            each.mu, each._alive = each.mu * torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])
            assert [state.plane for state in held.states(1, 1, v, 0.0)] == [1]
        if number == 4:
            assert [state.plane for state in held.states(1, 1, v, 0.0)] == [1, 3, 4]
    assert [state.plane for state in held.states(1, 1, v, 0.0)] == [3, 4, 5]


def test_states_name_their_layer_where_planes_are_on_single_layers():
    v = gap(*parameters(), LAMBDA)
    held = planes(per_layer=True)
    held.add(v)
    held.add(v)
    states = held.states(3, 40, v, 0.5)
    assert [(state.layer, state.plane) for state in states] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [state.g for state in states[::2]] == pytest.approx([torch.linalg.vector_norm(x).item() for x in v])
    whole = planes()
    whole.add(v)
    (state,) = whole.states(3, 40, v, 0.5)
    assert (state.layer, state.g) == (0, pytest.approx(g_of(v, "l2").item()))


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({"cut_every": 1}, [10, 20, 30, 40, 50, 60]),
        ({"cut_every": 3}, [30, 60]),
        ({"cut_steps": 25}, [25, 50]),
        ({"cut_steps": 7, "cut_every": 2}, [7, 14, 21, 28, 35, 42, 49, 56]),
    ],
)
def test_when_planes_are_taken(changes, at):
    held = planes(**changes)
    assert [step for step in range(1, 61) if held.due(step, iterations=10)] == at


def test_coordinates():
    def at(constraint):
        return planes(constraint=constraint).coordinates(SPACE, LAMBDA, USED)

    assert torch.equal(at("raw"), LAMBDA)
    torch.testing.assert_close(at("value"), 0.95 * torch.sigmoid(LAMBDA))
    assert torch.equal(at("displaced"), USED)
    assert at("response_weight") is None


def test_planes_go_on_from_their_state():
    v = gap(*parameters(), LAMBDA)
    ours = planes(multiplier="adbo", per_layer=True)
    for _ in range(3):
        ours.add(v)
        ours.ascend(v)
    theirs = planes(multiplier="adbo", per_layer=True)
    theirs.load_state_dict(ours.state_dict())
    for each in (ours, theirs):
        each.ascend(v)
        each.add(v)
    assert ours.states(1, 1, v, 0.0) == theirs.states(1, 1, v, 0.0)
