"""What leaves a module with a response, against the module itself at displaced weights, one example after the other."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, jvp
from torch.nn.utils.parametrizations import weight_norm

from cpmlho.core.net import Net, plain_attention
from cpmlho.core.options import DeltaSTN
from cpmlho.core.response import Layers, Response, initialise, still_statistics
from cpmlho.core.spaces import Uniform, Values
from cpmlho.study.networks import cnn, mlp
from cpmlho.study.pooling import MaxPool2

N, B = 2, 3


class Residual(nn.Module):
    """BatchNorm, a residual, a stride, groups, and no bias where a norm follows."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect", bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.down = nn.Conv2d(4, 6, 3, stride=2, dilation=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + self.inner(x).tanh()
        return self.head(self.down(x).mean((2, 3)))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens):
        return self.head(self.encoder(self.embed(tokens), src_key_padding_mask=tokens == 0).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.before = nn.Embedding(11, 6), nn.Linear(6, 6)
        self.lstm, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, tokens):
        return self.head(self.lstm(self.before(self.embed(tokens)))[0][:, -1])


class TwoInputs(nn.Module):
    """Two inputs, one by name; a dictionary with a tuple in it comes out."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 3, bias=False), nn.Conv1d(2, 3, 3)

    def forward(self, x, *, signal):
        hidden = self.left(x) * self.right(signal).mean(2)
        return {"logits": hidden.sin(), "pair": (hidden.exp(), hidden[:, 0])}


class Twice(nn.Module):
    """One layer called twice, and two layers that share their weight."""

    def __init__(self):
        super().__init__()
        self.again, self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(self.again(self.again(x).tanh())).tanh())


class PartlyFrozen(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3))
        self[0].requires_grad_(False)
        self[2].bias.requires_grad_(False)


class Squashed(nn.Linear):
    """A layer of the user's own, which is more than a product."""

    def forward(self, x):
        return super().forward(x.sin())


class Hooked(nn.Sequential):
    """Hooks of the user's own, before a layer and after it, a layer of the user's own, and a weight computed anew."""

    def __init__(self):
        super().__init__(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 5), nn.Tanh(), Squashed(5, 3), nn.Linear(3, 3))
        weight_norm(self[5])
        self[1].register_forward_hook(lambda layer, inputs, out: out.exp())
        self[2].register_forward_pre_hook(lambda layer, inputs: (inputs[0].tanh(),))


def images(size, channels=3):
    return (torch.randn(B, channels, size, size, dtype=torch.float64),), {}


def tokens():
    return (torch.randint(1, 11, (B, 6)),), {}


def numbers():
    return (torch.randn(B, 4, dtype=torch.float64),), {}


CASES = {
    "mlp": (lambda: mlp(6, 3, (1, 8, 8)), lambda: images(8, 1)),
    "cnn": (lambda: cnn(7, 3, (1, 8, 8)), lambda: images(8, 1)),
    "residual": (Residual, lambda: images(9)),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=4), lambda: images(32)),
    "encoder": (Encoder, tokens),
    "recurrent": (Recurrent, tokens),
    "two inputs": (TwoInputs, lambda: (numbers()[0], {"signal": torch.randn(B, 2, 7, dtype=torch.float64)})),
    "used twice": (Twice, numbers),
    "partly frozen": (PartlyFrozen, numbers),
    "hooked": (Hooked, numbers),
}


def flat(out):
    if isinstance(out, torch.Tensor):
        return [out]
    return [tensor for part in (out.values() if isinstance(out, dict) else out) for tensor in flat(part)]


def with_response(make):
    """A module in float64, its layers with a response that is nowhere 0, and a displacement of each example."""
    torch.manual_seed(0)
    module = make().double().eval()
    layers = Layers(module, N, DeltaSTN(), torch.Generator().manual_seed(1))
    layers.response = [Response(R, r, torch.randn_like(H) * 0.1) for R, r, H in layers.response]
    return module, layers, torch.randn(B, N, dtype=torch.float64)


def net(layers, d, *, linear=False):
    space = {"a": Uniform(0, 1), "b": Uniform(0, 1)}
    return Net(layers, Values(space, torch.zeros(B, N), torch.Generator()), d, linear=linear)


def directions(module, layers, at):
    """What the displacement `at` (n,) adds to each parameter: (H_w d) R to a weight, (H_b d) r to a bias."""
    found = {}
    for name, (i, is_bias) in layers.by_name.items():
        R, r, H = layers.response[i]
        scale, shift = (H @ at).chunk(2)
        found[name] = shift * r if is_bias else torch.einsum("o,o...->o...", scale, R)
    return found


def one(inputs, row):
    args, named = inputs
    return tuple(x[row : row + 1] for x in args), {name: x[row : row + 1] for name, x in named.items()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("linear", [False, True])
def test_each_example_sees_weights_of_its_own(case, linear):
    make, draw = CASES[case]
    module, layers, d = with_response(make)
    inputs, oracle = draw(), copy.deepcopy(module)
    for i, part in enumerate(oracle.children()):
        if isinstance(part, MaxPool2):
            oracle[i] = nn.MaxPool2d(2)
    with torch.no_grad():
        found = flat(net(layers, d, linear=linear)(*inputs[0], **inputs[1]))
        plain = {name: p.detach() for name, p in module.named_parameters()}
        for row in range(B):
            args, named = one(inputs, row)

            def at(moved, args=args, named=named):
                with plain_attention():
                    return tuple(flat(functional_call(oracle, {**plain, **moved}, args, named)))

            way = directions(module, layers, d[row])
            start = {name: plain[name] for name in way}
            if linear:
                value, slope = jvp(at, (start,), (way,))
                expected = [v + s for v, s in zip(value, slope, strict=True)]
            else:
                expected = at({name: start[name] + way[name] for name in way})
            for ours, theirs, before in zip(found, expected, at({}), strict=True):
                torch.testing.assert_close(ours[row : row + 1], theirs, rtol=1e-9, atol=1e-9)
                assert not torch.allclose(theirs, before, rtol=1e-3)  # the response is no small thing


def test_what_responds():
    def names(make):
        return with_response(make)[1].names

    assert names(Twice) == ["again.weight", "first.weight"]
    assert names(PartlyFrozen) == ["2.weight", "4.weight"]
    assert names(Recurrent) == ["before.weight", "head.weight"]
    assert [name for name in names(Encoder) if "attn" in name] == []  # attention reads its weights itself


def test_a_weight_tied_to_an_embedding_does_not_respond():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.body, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight

    assert with_response(Tied)[1].names == ["body.weight"]


def test_batch_statistics_take_part_in_the_linearised_pass_and_stay_where_they_are():
    module, layers, d = with_response(Residual)
    module.train()
    inputs, kept = images(9)[0], copy.deepcopy(module.norm.state_dict())
    step = 1e-5
    with torch.no_grad(), still_statistics(module):
        base = module(*inputs)
        slope = (net(layers, step * d)(*inputs) - net(layers, -step * d)(*inputs)) / (2 * step)
        torch.testing.assert_close(net(layers, d, linear=True)(*inputs), base + slope, rtol=1e-6, atol=1e-6)
    for name, tensor in module.norm.state_dict().items():
        assert torch.equal(tensor, kept[name]), name


@pytest.mark.parametrize("where", [None, lambda name: name == "2.bias", lambda name: True])
def test_l2_is_that_of_each_examples_weights(where):
    module, layers, d = with_response(lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3)))
    chosen = [n for n, p in module.named_parameters() if (p.dim() > 1 if where is None else where(n))]
    with torch.no_grad():
        found = net(layers, d).l2(where)
        for row in range(B):
            way = directions(module, layers, d[row])
            moved = [p + way.get(n, 0) for n, p in module.named_parameters() if n in chosen]
            assert found[row].item() == pytest.approx(sum(0.5 * p.square().sum().item() for p in moved))


def test_the_response_folds_into_the_weights():
    module, layers, _ = with_response(Residual)
    at, state, inputs = torch.tensor([0.3, -0.7], dtype=torch.float64), dict(module.state_dict()), images(9)[0]
    with torch.no_grad():
        expected = net(layers, at.expand(B, -1))(*inputs)
        layers.fold(state, at)
        module.load_state_dict(state)
        torch.testing.assert_close(module(*inputs), expected)


def test_examples_that_are_not_first_are_refused():
    _, layers, d = with_response(lambda: nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"weight gets 5 rows from a batch of 3 examples.*batch_first"):
        net(layers, d)(torch.randn(5, 3, 4, dtype=torch.float64))


def test_an_operation_without_forward_mode_is_named():
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sin()

        @staticmethod
        def backward(ctx, g):
            return g

    module, layers, d = with_response(lambda: nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.Linear(4, 2)))
    module[1].forward = Own.apply
    with pytest.raises(RuntimeError, match=r"without a forward-mode derivative.*cpmlho.STN\(\)"):
        net(layers, d, linear=True)(*numbers()[0])


@pytest.mark.parametrize("case", ["two inputs", "cnn"])
@pytest.mark.parametrize("linear", [False, True])
def test_gradients_with_respect_to_response_and_displacement(case, linear):
    make, draw = CASES[case]
    _, layers, d = with_response(make)
    inputs, named = draw()

    def output(delta, *parameters):
        layers.response = [Response(*parameters[i : i + 3]) for i in range(0, len(parameters), 3)]
        return flat(net(layers, delta, linear=linear)(*inputs, **named))[0]

    leaves = [p.detach().requires_grad_() for p in layers.parameters]
    assert torch.autograd.gradcheck(output, (d.requires_grad_(), *leaves), fast_mode=True)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pooling_has_the_derivatives_of_forward_mode(memory_format):
    a, t = torch.randn(2, 3, 4, 8, 6, dtype=torch.float64)
    a[0] = 0  # ties
    a, t = (x.contiguous(memory_format=memory_format) for x in (a, t))
    with forward_ad.dual_level():
        ours = forward_ad.unpack_dual(MaxPool2()(forward_ad.make_dual(a, t.requires_grad_())))
        theirs = forward_ad.unpack_dual(F.max_pool2d(forward_ad.make_dual(a, t.detach()), 2))
    assert torch.equal(ours.primal, theirs.primal)
    assert torch.equal(ours.tangent, theirs.tangent)
    weights = torch.randn_like(ours.tangent)
    (transposed,) = torch.autograd.grad(ours.tangent, t, weights)  # linear in t: <w, J t> = <J^T w, t>
    assert (weights * ours.tangent).sum().item() == pytest.approx((transposed * t).sum().item())


def test_initialisation_is_torchs_own_and_the_response_starts_at_zero():
    module = nn.Sequential(nn.Linear(300, 200), nn.Conv2d(30, 40, 3))
    initialise(module, torch.Generator().manual_seed(0))
    first = [p.clone() for p in module.parameters()]
    layers = Layers(module, N, DeltaSTN(), torch.Generator().manual_seed(1))
    for layer, (R, r, H) in zip(module, layers.response, strict=True):
        theirs = type(layer)(*((300, 200) if isinstance(layer, nn.Linear) else (30, 40, 3)))
        for ours, own in (
            (layer.weight, theirs.weight),
            (R, theirs.weight),
            (layer.bias, theirs.bias),
            (r, theirs.bias),
        ):
            assert ours.shape == own.shape
            assert ours.abs().max() <= 1 / layer.weight[0].numel() ** 0.5
            assert ours.numel() < 1000 or ours.std().item() == pytest.approx(own.std().item(), rel=0.05)
        assert H.shape == (2 * len(layer.weight), N)
        assert not H.any()
    initialise(module, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(first, module.parameters(), strict=True))


def test_the_papers_networks_have_their_sizes():
    def shapes(module):
        return [tuple(p.shape) for p in module.parameters() if p.dim() > 1]

    assert shapes(mlp(1200, 10)) == [(1200, 784), (1200, 1200), (10, 1200)]
    assert shapes(cnn(1568, 10)) == [(16, 1, 5, 5), (32, 16, 5, 5), (1568, 1568), (10, 1568)]
    assert shapes(cnn(0, 10)) == [(16, 1, 5, 5), (32, 16, 5, 5), (10, 1568)]
