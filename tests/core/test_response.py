"""Response layers and the linearised pass against torch.func.jvp, finite differences and per-example loops."""

import pytest
import torch
import torch.nn.functional as F
from cpmlho.core.layers import ChannelsLast, Conv2d, Dropout, Flatten, Lifted, Linear, MaxPool2, Relu, Residual
from cpmlho.core.regularisers import Regularisers
from torch.func import jvp

from cpmlho.core.response import Displacement, General, Response, ResponseNetwork
from cpmlho.study.networks import cnn, mlp

N = 3
NETWORKS = {
    "mlp": (
        ResponseNetwork(
            (Flatten(), Dropout("d0"), Linear(8, 7), Relu(), Dropout("d1"), Linear(7, 5), Relu(), Linear(5, 4))
        ),
        (1, 2, 4),
    ),
    "cnn": (
        ResponseNetwork(
            (
                Dropout("d0"),
                ChannelsLast(),
                Conv2d(2, 3, 3, 1),
                MaxPool2(),
                Relu(),
                Dropout("d1"),
                Conv2d(3, 4, 5, 2),
                MaxPool2(),
                Relu(),
                Flatten(),
                Linear(4 * 4, 6),
                Relu(),
                Linear(6, 4),
            )
        ),
        (2, 8, 8),
    ),
    "lifted": (
        ResponseNetwork((Flatten(), Linear(8, 7), Lifted(torch.tanh), Dropout("d0"), Linear(7, 4), Lifted(F.silu))),
        (1, 2, 4),
    ),
    "residual": (
        ResponseNetwork(
            (
                Residual((Dropout("d0"), Conv2d(2, 2, 3, 1), Relu())),
                MaxPool2(),
                Residual((Conv2d(2, 2, 3, 1), Residual((Relu(), Dropout("d1"), Conv2d(2, 2, 3, 1))), Relu())),
                Residual((Relu(),)),
                Flatten(),
                Linear(2 * 4, 4),
            )
        ),
        (2, 4, 4),
    ),
}


def problem(name, batch=5, seed=0):
    """A network in float64 with parameters, an input and displacements; H is not zero."""
    network, shape = NETWORKS[name]
    g = torch.Generator().manual_seed(seed)
    general, response = network.initialise(N, g)
    general = [General(*(p.double() for p in layer)) for layer in general]
    response = [
        Response(R.double(), r.double(), torch.randn(H.shape, generator=g, dtype=torch.float64)) for R, r, H in response
    ]
    a = torch.randn(batch, *shape, generator=g, dtype=torch.float64)
    d = torch.randn(batch, N, generator=g, dtype=torch.float64)
    return network, general, response, a, d


def noise(values, seed=7):
    """Regularisers that draw the same masks each time they are made."""
    return Regularisers(("d0", "d1"), values, {}, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_is_each_example_with_its_own_weights(name):
    network, general, response, a, d = problem(name)
    outputs = network.forward(a, general, None, Displacement(response, d))
    for i in range(len(a)):
        own = []
        for (W, b), (R, r, H) in zip(general, response, strict=True):
            scale, shift = (H @ d[i]).chunk(2)
            own.append(General(W + scale.view(-1, *(1,) * (W.dim() - 1)) * R, b + shift * r))
        torch.testing.assert_close(outputs[i], network.forward(a[i : i + 1], own)[0])


def test_a_residual_stage_adds_its_output_to_its_input():
    _, (general, *_), _, a, _ = problem("residual")
    own = ResponseNetwork((Residual((Conv2d(2, 2, 3, 1), Relu())), Flatten()))
    expected = a + F.conv2d(a, general.W, general.b, padding=1).relu()
    torch.testing.assert_close(own.forward(a, [general]), expected.flatten(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_no_displacement_is_the_plain_network(name):
    network, general, response, a, d = problem(name)
    plain = network.forward(a, general)
    torch.testing.assert_close(network.forward(a, general, None, Displacement(response, torch.zeros_like(d))), plain)
    torch.testing.assert_close(network.linearised(a, general, None, Displacement(response, torch.zeros_like(d))), plain)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("masked", [False, True])
def test_linearised_is_the_jacobian_vector_product(name, masked):
    network, general, response, a, d = problem(name)
    rates = torch.full((len(a), 2), 0.3)

    def act():
        return noise(rates) if masked else None

    def output(displacement):
        return network.forward(a, general, act(), Displacement(response, displacement))

    value, tangent = jvp(output, (torch.zeros_like(d),), (d,))
    torch.testing.assert_close(network.linearised(a, general, act(), Displacement(response, d)), value + tangent)


@pytest.mark.parametrize("name", NETWORKS)
def test_linearised_is_the_finite_difference(name):
    network, general, response, a, d = problem(name)
    h = 1e-6
    up, down = (network.forward(a, general, None, Displacement(response, sign * h * d)) for sign in (1, -1))
    expected = network.forward(a, general) + (up - down) / (2 * h)
    torch.testing.assert_close(
        network.linearised(a, general, None, Displacement(response, d)), expected, rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("way", ["forward", "linearised"])
def test_response_gradient_is_the_finite_difference(name, way):
    network, general, response, a, d = problem(name, batch=2)
    flat = [p.requires_grad_() for layer in response for p in layer]

    def output(*parameters):
        layers = [Response(*parameters[i : i + 3]) for i in range(0, len(parameters), 3)]
        return getattr(network, way)(a, general, None, Displacement(layers, d))

    assert torch.autograd.gradcheck(output, flat, fast_mode=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_hypergradient_is_the_finite_difference(name):
    network, general, response, a, d = problem(name)
    assert torch.autograd.gradcheck(
        lambda x: network.forward(a, general, None, Displacement(response, x)), d.requires_grad_()
    )


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_general_gradient_is_the_finite_difference(name):
    network, general, _, a, _ = problem(name, batch=2)
    flat = [p.requires_grad_() for layer in general for p in layer]

    def output(*parameters):
        return network.forward(a, [General(*parameters[i : i + 2]) for i in range(0, len(parameters), 2)])

    assert torch.autograd.gradcheck(output, flat, fast_mode=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_linearised_does_not_touch_the_general_parameters(name):
    network, general, response, a, d = problem(name)
    leaf = general[0].W.requires_grad_()
    response[0].R.requires_grad_()
    output = network.linearised(a, general, None, Displacement(response, d)).sum()
    assert torch.autograd.grad(output, leaf, allow_unused=True)[0] is None


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pooling_lifts_as_forward_mode_does(memory_format):
    a, t = torch.randn(2, 3, 4, 8, 6, dtype=torch.float64)
    a[0] = 0  # ties
    a, t = (x.contiguous(memory_format=memory_format) for x in (a, t))
    ours = MaxPool2().lift(a, t.requires_grad_())
    theirs = jvp(lambda x: F.max_pool2d(x, 2), (a,), (t.detach(),))
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    weights = torch.randn_like(ours[1])
    (transposed,) = torch.autograd.grad(ours[1], t, weights)  # the tangent is linear in t: <w, J t> = <J^T w, t>
    assert (weights * ours[1]).sum().item() == pytest.approx((transposed * t).sum().item())


def test_relu_lifts_as_forward_mode_does():
    a, t = torch.randn(50), torch.randn(50)
    ours, theirs = Relu().lift(a, t), Lifted(torch.relu).lift(a, t)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


def test_initialisation_is_torchs_own_and_the_map_starts_at_zero():
    network = mlp(1200, 10)
    general, response = network.initialise(3, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    for layer, (W, b), (R, r, H) in zip(network.layers, general, response, strict=True):
        theirs = torch.nn.Linear(layer.inputs, layer.outputs)
        for ours, weight in ((W, theirs.weight), (R, theirs.weight), (b, theirs.bias), (r, theirs.bias)):
            assert ours.shape == weight.shape
            bound = 1 / layer.inputs**0.5
            assert ours.abs().max() <= bound
            if ours.numel() > 1000:
                assert ours.std().item() == pytest.approx(weight.std().item(), rel=0.05)
        assert H.shape == (2 * layer.outputs, 3)
        assert not H.any()


def test_the_papers_networks_have_their_sizes():
    assert [layer.shape for layer in mlp(1200, 10).layers] == [(1200, 784), (1200, 1200), (10, 1200)]
    assert [layer.shape for layer in mlp(1200, 1200).layers][-1] == (1200, 1200)
    shapes = [(16, 1, 5, 5), (32, 16, 5, 5), (1568, 1568), (10, 1568)]
    assert [layer.shape for layer in cnn(1568, 10).layers] == shapes
    assert [layer.shape for layer in cnn(0, 10).layers] == [*shapes[:2], (10, 1568)]
    general, _ = cnn(32, 10).initialise(5, torch.Generator().manual_seed(0))
    assert cnn(32, 10).forward(torch.zeros(2, 1, 28, 28), general).shape == (2, 10)
