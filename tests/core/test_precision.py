"""Products of bfloat16 numbers in float32 against torch's own in bfloat16, one by one and over whole steps."""

import pytest
import torch
from cpmlho.core.layers import Conv2d, Linear
from cpmlho.core.steps import CACHED, Trainable, flat
from torch.func import jvp

from cpmlho.core import precision
from cpmlho.core.response import Displacement, General, Response
from cpmlho.study.networks import cnn, mlp

BFLOAT16 = torch.bfloat16
NETWORKS = {"mlp": mlp(40, 10), "cnn": cnn(32, 10)}
ULP = 2**-8  # half the distance of neighbouring bfloat16 numbers, relative to the smaller, is at most this


@pytest.fixture(params=[False, True], ids=["float32_kernel", "native"])
def native(request, monkeypatch):
    monkeypatch.setattr(precision, "native_bfloat16", lambda device: request.param)
    return request.param


def without(monkeypatch):
    monkeypatch.setattr(precision, "native_bfloat16", lambda device: False)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("layer", "shape"), [(Linear(300, 40), (16, 300)), (Conv2d(8, 12, 5, 2), (16, 8, 14, 14))], ids=["linear", "conv"]
)
def test_a_product_and_its_gradients_are_float64s_rounded_once(layer, shape, native):
    """Native or not: the exact product of the rounded operands, summed in float32 and rounded at the end."""
    a, W, b = normal(*shape), normal(*layer.shape, seed=1) / 17, normal(layer.outputs, seed=2)
    rounded = [x.to(BFLOAT16) for x in (a, W, b)]
    kept = [rounded[0], *General(W, b).to(BFLOAT16)]
    assert kept[1].dtype == (BFLOAT16 if native else torch.float32)

    def outputs_and_gradients(operands, along):
        operands = [x.detach().requires_grad_() for x in operands]
        outputs = layer.apply(*operands)
        return [outputs, *torch.autograd.grad(outputs, operands, along.to(outputs.dtype))]

    along = normal(*layer.apply(a, W, b).shape, seed=3).to(BFLOAT16)
    expected = outputs_and_gradients([x.double() for x in rounded], along)
    for ours, exact in zip(outputs_and_gradients(kept, along), expected, strict=True):
        error = (ours.to(BFLOAT16).double() - exact).abs()
        assert (error <= ULP * exact.abs() + 1e-4).all()
        assert (ours.to(BFLOAT16) == exact.to(BFLOAT16)).double().mean() > 0.98


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_what_native_products_give(name, monkeypatch):
    """Value, linearised output and gradients of the response, against the same numbers multiplied in bfloat16."""
    network = NETWORKS[name]
    generator = torch.Generator().manual_seed(0)
    general, response = network.initialise(3, generator)
    response = [Response(R, r, 0.3 * normal(*H.shape)) for R, r, H in response]
    a, d = normal(8, 1, 28, 28).to(BFLOAT16), normal(8, 3, seed=5)

    def act(native):
        monkeypatch.setattr(precision, "native_bfloat16", lambda device: native)
        fixed = [layer.to(BFLOAT16) for layer in general]
        leaves = [Response(*(p.detach().requires_grad_() for p in layer.to(BFLOAT16))) for layer in response]
        outputs = network.linearised(a, fixed, None, Displacement(leaves, d))
        assert outputs.dtype == BFLOAT16
        return [outputs, network.forward(a, fixed), *torch.autograd.grad(outputs.sum(), flat(leaves))]

    for ours, theirs in zip(act(False), act(True), strict=True):
        difference = torch.linalg.vector_norm(ours.double() - theirs.double())
        assert difference <= 0.02 * torch.linalg.vector_norm(theirs.double())


@pytest.mark.parametrize("name", NETWORKS)
def test_linearised_is_the_jacobian_vector_product_of_the_kept_weights(name, monkeypatch):
    without(monkeypatch)
    network = NETWORKS[name]
    general, response = network.initialise(3, torch.Generator().manual_seed(0))
    general = [layer.to(BFLOAT16) for layer in general]
    response = [Response(R, r.to(BFLOAT16), 0.3 * normal(*H.shape)) for R, r, H in (x.to(BFLOAT16) for x in response)]
    a, d = normal(8, 1, 28, 28).to(BFLOAT16), normal(8, 3, seed=5)
    exact = [[type(x)(*(p.double() for p in x)) for x in layers] for layers in (general, response)]
    value, tangent = jvp(
        lambda x: network.forward(a.double(), exact[0], None, Displacement(exact[1], x)),
        (torch.zeros(8, 3).double(),),
        (d.double(),),
    )
    ours = network.linearised(a, general, None, Displacement(response, d)).double()
    assert torch.linalg.vector_norm(ours - value - tangent) <= 0.02 * torch.linalg.vector_norm(value + tangent)


def layers(seed):
    shapes = ((3, CACHED // 2), (3,), (6, 4))  # the first is one and a half pieces
    return [Response(*(normal(*shape, seed=seed + i) for i, shape in enumerate(shapes)))]


def test_descent_takes_rounded_gradients_and_leaves_rounded_copies(native):
    gradients, pulls = flat(layers(10)), flat(layers(20))
    trained = Trainable(layers(0), BFLOAT16)
    if native:
        gradients = [g.to(copy.dtype) for g, copy in zip(gradients, flat(trained.working), strict=True)]
    gradients[1] = gradients[1].to(BFLOAT16)  # r is no operand of a product
    trained.descend(0.1, gradients, pulls)
    taken = [*(g.to(BFLOAT16).float() for g in gradients[:2]), gradients[2]]
    expected = [p - 0.1 * g - 0.1 * f for p, g, f in zip(flat(layers(0)), taken, pulls, strict=True)]
    torch.testing.assert_close(flat(trained.masters), expected)
    for master, working in zip(flat(trained.masters)[:2], flat(trained.working)[:2], strict=True):
        assert torch.equal(working.float(), master.to(BFLOAT16).float())
    assert trained.working[0].H is trained.masters[0].H


def test_copies_are_refreshed_rounded_and_the_map_stays_as_it_is(native):
    trained = Trainable(layers(0), BFLOAT16)
    torch._foreach_copy_(flat(trained.masters), flat(layers(30)))
    trained.refresh()
    R, r, H = layers(30)[0]
    for working, master in ((trained.working[0].R, R), (trained.working[0].r, r)):
        assert torch.equal(working.float(), master.to(BFLOAT16).float())
    assert torch.equal(trained.masters[0].H, H)


@pytest.mark.parametrize(("limit", "expected"), [("AVX2", False), ("AVX512_CORE", False), ("AVX512_CORE_AMX", True)])
def test_instructions_that_the_user_keeps_back_do_not_count(limit, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert precision.native_bfloat16(torch.device("cpu")) == expected
