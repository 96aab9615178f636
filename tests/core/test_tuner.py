"""A Tuner from outside: how modules, optimizers, buffers, devices and states behave around it."""

import collections
import copy
import dataclasses
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from setups import RATE, SPACE, X, Y, entropy, mlp, quietly, train, tuner
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cpmlho
from cpmlho.core.loading import move, rows

# --- Modules: dropout, buffers, outputs, methods. ---


def test_dropout_takes_a_rate_an_example_and_outside_a_step_the_present_one():
    net = mlp(cpmlho.Dropout("rate"))
    run = train(tuner(net, space={"rate": cpmlho.Uniform(0, 0.9, 0.5), **SPACE}))
    dropped = net[1](torch.ones(4, 2000)).eq(0).double().mean(1)
    assert ((dropped - run.values["rate"]).abs() < 0.06).all()


def test_dropout_alone_needs_a_rate():
    with pytest.raises(RuntimeError, match=r"Dropout\('rate'\) has no rate"):
        cpmlho.Dropout("rate")(X)
    assert (cpmlho.Dropout("rate", fixed=0.5)(torch.ones(100)) == 0).any()
    assert torch.equal(cpmlho.Dropout("rate").eval()(X), X)


class Counting(nn.Module):
    """Buffers that the user's code moves at each call: one in place, one replaced."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.ones(6))

    def forward(self, x):
        out = x * self.mean
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return out


def test_buffers_move_once_a_step_and_parts_keep_their_mode():
    net = mlp(nn.BatchNorm1d(6), nn.BatchNorm1d(6), Counting())
    run = tuner(net, method=cpmlho.CPMLHO(cutting_planes=False, upper_regularised=True, train_steps=1))
    net[2].eval()  # a norm that the user holds still
    train(run, 3)
    assert (net[1].num_batches_tracked, net[2].num_batches_tracked, net[3].calls) == (3, 0, 3)
    assert [part.training for part in net] == [True, True, False, True, True]
    run.evaluate([(X, Y)])
    assert net[3].calls == 4


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    hidden: tuple


class Structured(nn.Module):
    def __init__(self, plain):
        super().__init__()
        self.inner, self.plain = mlp(), plain

    def forward(self, x):
        logits = self.inner(x)
        return logits if self.plain else Output(logits, (logits.exp(),))

    def encode(self, x):
        return self.inner[1](self.inner[0](x))

    @property
    def first(self):
        """A parameter of another name."""
        return self.inner[0].weight


def test_outputs_in_a_dataclass_are_linearised():
    values = []
    for plain in (True, False):

        def loss(net, batch, h, plain=plain):
            out = net(batch[0])
            return F.cross_entropy(out if plain else out.logits, batch[1], reduction="none") + h.r * net.l2()

        run = tuner(Structured(plain), loss, lambda net, batch, loss=loss: loss(net, batch, SimpleNamespace(r=0.0)))
        quietly(run, 20)
        values.append([run.bilevel.lam, *run.bilevel.layers.parameters])
    assert all(torch.equal(one, two) for one, two in zip(*values, strict=True))


def test_outputs_that_hide_tensors_are_refused():
    module = nn.Sequential(nn.Linear(4, 3))
    module.register_forward_hook(lambda module, inputs, out: SimpleNamespace(logits=out))
    run = tuner(module, lambda net, batch, h: entropy(lambda x: net(x).logits, batch) + h.r * net.l2())
    with pytest.raises(TypeError, match="output holds a SimpleNamespace, in which the tuner cannot find tensors"):
        train(run)


def test_net_calls_any_method_and_submodule():
    module = Structured(True)

    def loss(net, batch, *h):
        return entropy(lambda x: net.encode(x)[:, :3], batch) + sum(each.r * net.l2() for each in h)

    run = tuner(module, loss, loss)
    with pytest.warns(cpmlho.TunerWarning, match="do not respond"):  # the last layer
        train(run)
    assert run.bilevel.layers.response[0].H.any()
    assert run.net.plain is True
    torch.testing.assert_close(run.net.inner(X), module(X))
    torch.testing.assert_close(run.net.first[0], module.first)


@pytest.mark.parametrize("rank", [1, 3])
def test_net_gives_the_weights_of_each_example(rank):
    bilevel = tuner(method=cpmlho.DeltaSTN(rank=rank)).bilevel
    values, delta = bilevel.values_at(torch.zeros(8, 1), "idle"), torch.linspace(-1, 1, 8)[:, None]
    net = cpmlho.Net(bilevel.layers.responding_by(0.3), values, delta)
    squares = sum(p.square().flatten(1).sum(1) for p in net.parameters()) / 2
    torch.testing.assert_close(squares, net.l2(lambda name: True))
    named = dict(net.named_parameters())
    assert named["0.weight"].shape == (8, 6, 4)
    out = torch.einsum("bi,boi->bo", X, named["0.weight"]) + named["0.bias"]
    out = torch.einsum("bi,boi->bo", out.tanh(), named["2.weight"]) + named["2.bias"]
    torch.testing.assert_close(net(X), out)


def test_a_compiled_module():
    net = torch.compile(mlp(), backend="eager")
    assert train(tuner(net), 7).values == pytest.approx(train(tuner(), 7).values)


def test_zero_weights_do_not_start_a_response():
    module = mlp()
    nn.init.zeros_(module[2].weight)
    first, second = tuner(module, method=cpmlho.DeltaSTN(response_weights="frozen")).bilevel.layers.response
    assert torch.equal(first.R, module[0].weight)
    assert second.R.any()


# --- Optimizers. ---


def test_the_response_follows_the_optimizer_and_its_schedule():
    net = mlp()
    optimizer = torch.optim.AdamW(net.parameters(), 0.1, weight_decay=0.3, betas=(0.8, 0.9))
    run = tuner(net, optimizer=optimizer, check=False)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    train(run)
    schedule.step()
    train(run)
    (group,) = run.bilevel.response_optimizer.param_groups
    assert type(run.bilevel.response_optimizer) is torch.optim.AdamW
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.05, 0.0, (0.8, 0.9))


def test_each_group_of_the_optimizer_has_its_rate_in_the_response():
    module = mlp()
    groups = [{"params": module[0].parameters(), "lr": 0.0}, {"params": module[2].parameters(), "lr": 0.1}]
    first, second = train(tuner(module, optimizer=torch.optim.SGD(groups, 0.1))).bilevel.layers.response
    assert not first.H.any()
    assert second.H.any()


def test_another_optimizer_step_changes_nothing():
    run = train(tuner())
    kept = copy.deepcopy(run.module.state_dict())
    run.optimizer.step()
    assert all(torch.equal(run.module.state_dict()[name], kept[name]) for name in kept)


def test_gradients_of_weights_and_response_are_clipped():
    norms, run = {}, tuner(max_norm=1e-3)
    for name in ("optimizer", "response_optimizer"):

        def note(optimizer, args, kwargs, name=name):
            held = [p.grad.norm() for group in optimizer.param_groups for p in group["params"]]
            norms[name] = torch.stack(held).norm().item()

        getattr(run.bilevel, name).register_step_pre_hook(note)
    train(run)
    assert norms == pytest.approx({"optimizer": 1e-3, "response_optimizer": 1e-3}, rel=1e-2)


@pytest.mark.parametrize("method", [cpmlho.DeltaSTN(), cpmlho.STN(hyper_learning_rate=0.02)])
def test_each_hyperparameter_has_its_learning_rate(method):
    """Against RMSprop written out here, on the gradients that the optimizer gets."""
    space = {"r": cpmlho.LogUniform(1e-6, 1e-1, 1e-3, learning_rate=0.05), "rate": RATE}
    run = tuner(mlp(cpmlho.Dropout("rate")), space=space, method=method)
    lam, square = run.bilevel.lam.detach().clone(), torch.zeros(2)
    rates, gradients = torch.tensor([0.05, method.hyper_learning_rate]), []
    run.bilevel.hyper_optimizer.register_step_pre_hook(lambda *_: gradients.append(run.bilevel.lam.grad.clone()))
    for step in range(1, 31):
        train(run)
        if step % 5 == 0:
            square = 0.99 * square + 0.01 * gradients[-1] ** 2
            mean = square / (1 - 0.99 ** (step // 5)) if method.bias_correction else square
            lam = lam - rates * gradients[-1] / (mean.sqrt() + 1e-8)
            torch.testing.assert_close(run.bilevel.lam.detach(), lam)
    assert len(gradients) == run.updates == 6


# --- Precision, devices, states, batches. ---


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_parameters_and_finds_about_the_same(dtype):
    half, whole = (train(tuner(mlp(nn.LayerNorm(6)), autocast=cast, check=False), 40) for cast in (dtype, None))
    assert all(p.dtype == torch.float32 for p in half.module.parameters())
    assert half.values == pytest.approx(whole.values, rel=0.05)
    assert half.values != whole.values
    state = half.state_dict()
    assert (state["scaler"].get("scale", 1) > 1) == (dtype == torch.float16)
    other = tuner(mlp(nn.LayerNorm(6)), autocast=dtype, check=False)
    other.load_state_dict(state)
    assert train(other).values == train(half).values


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU"))])  # fmt: skip
def test_it_moves_and_goes_on(device):
    run = train(tuner(method=cpmlho.CPMLHO(cut_steps=1)))
    assert run.to(device) is run
    train(run, 10)
    other = tuner(mlp().to(device), method=cpmlho.CPMLHO(cut_steps=1))
    other.load_state_dict(move(run.state_dict(), torch.device("cpu")))
    for each in (run, other):
        tensors = (*each.module.parameters(), *each.bilevel.layers.parameters, each.bilevel.lam)
        assert {tensor.device.type for tensor in tensors} == {device}
    assert train(other, 5).values == train(run, 5).values


def test_the_default_device_of_torch_changes_nothing():
    """Scripts set it to a GPU; tensors on `meta` have no data, so that none can be made there by mistake."""
    expected, module = train(tuner(), 10).values, mlp()
    with torch.device("meta"):
        assert train(tuner(module), 10).values == expected


@pytest.mark.parametrize("rank", [1, 2])
def test_a_state_in_memory_stays_as_it_was_taken(rank):
    run = train(tuner(method=cpmlho.DeltaSTN(rank=rank)))
    state = run.state_dict()
    kept, values = copy.deepcopy(state["module"]), run.values
    assert train(run, 10).values != values
    run.load_state_dict(state)
    assert run.values == values
    assert all(torch.equal(run.module.state_dict()[name], kept[name]) for name in kept)
    train(run, 10)
    assert all(torch.equal(state["module"][name], kept[name]) for name in kept)


def test_batches_of_any_structure():
    Pair = collections.namedtuple("Pair", "x y")
    batch = {"x": X, "more": [Y, {"z": X}], "what": "text", "factor": torch.tensor(2.0)}
    for each in (batch, collections.UserDict(batch)):
        assert rows(each) == 8
        assert move(each, torch.device("meta"))["more"][1]["z"].device.type == "meta"
        assert move(each, torch.device("cpu"))["what"] == "text"
    assert move(Pair(X, "text"), torch.device("meta")).x.device.type == "meta"


# --- What it reports. ---


def test_metrics_are_means_over_examples():
    run = tuner(valid_loss=lambda net, batch: entropy(net, batch).mean())
    found = run.evaluate(
        [(X, Y), (X[:2], Y[:2])],
        accuracy=lambda net, batch: (net(batch[0]).argmax(1) == batch[1]).float(),
        count=lambda net, batch: torch.tensor(float(len(batch[0]))),
    )
    outputs, labels = run.module(torch.cat([X, X[:2]])), torch.cat([Y, Y[:2]])
    assert found["accuracy"] == pytest.approx((outputs.argmax(1) == labels).double().mean().item())
    assert found["valid_loss"] == pytest.approx(F.cross_entropy(outputs, labels).item(), rel=1e-6)
    assert found["count"] == pytest.approx((8 * 8 + 2 * 2) / 10)
    assert run.module.training


def test_numbers_are_logged_at_each_update():
    logged = []
    run = tuner(log=lambda numbers, step: logged.append((step, set(numbers))), method=cpmlho.DeltaSTN(train_steps=2))
    train(run, 5)
    assert logged == [(step, {"train_loss", "valid_loss", "r"}) for step in (2, 4)]


# --- Known optima. ---


def test_an_l1_penalty_is_tuned():
    """Least of (w - 2)^2 / 2 + r |w| at w = 2 - r, so (w - 1)^2 at r = 1."""
    torch.manual_seed(0)
    module, one = nn.Linear(1, 1, bias=False), torch.ones(8, 1)

    def off(net, batch, target):
        return (net(batch)[:, 0] - target) ** 2 / 2

    run = tuner(
        module,
        lambda net, batch, h: off(net, batch, 2) + h.r * sum(p.abs().flatten(1).sum(1) for p in net.parameters()),
        lambda net, batch: off(net, batch, 1),
        space={"r": cpmlho.Uniform(0, 3, 0.3)},
        valid=[one],
        method=cpmlho.DeltaSTN(perturbation_scale=0.2, entropy_weight=1e-4),
    )
    assert train(run, 1500, one).values["r"] == pytest.approx(1, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "best", "worst"), [(1, 1.05, 1.5), (2, 1, 1.02)])
def test_a_higher_rank_tells_two_noise_levels_of_one_output_apart(rank, best, worst):
    """Noise on the inputs of a linear regression is a ridge penalty, here one on inputs that matter, one on others."""
    g = torch.Generator().manual_seed(0)
    truth = torch.cat([torch.randn(10, generator=g), torch.zeros(10)])

    def draw(rows):
        x = torch.randn(rows, 20, generator=g)
        return x, x @ truth + 1.5 * torch.randn(rows, generator=g)

    (x, y), (vx, vy) = draw(60), draw(500)
    range_ = cpmlho.LogUniform(1e-3, 30, 0.3)
    grid = torch.logspace(-3, 1.4, 45).tolist()

    def exact(matters, other):
        ridge = torch.tensor([matters] * 10 + [other] * 10).square()
        w = torch.linalg.solve(x.T @ x / 60 + torch.diag(ridge), x.T @ y / 60)
        return (vx @ w - vy).square().mean().item()

    def squares(net, batch):
        return (net(batch[0])[:, 0] - batch[1]).square()

    def noisy(net, batch, h):
        matter, other = batch[0].chunk(2, 1)
        halves = [cpmlho.noise(matter, h.a, generator=h.generator), cpmlho.noise(other, h.b, generator=h.generator)]
        return squares(net, (torch.cat(halves, 1), batch[1]))

    torch.manual_seed(0)
    module = nn.Linear(20, 1, bias=False)
    run = tuner(
        *(module, noisy, squares),
        space={"a": range_, "b": range_},
        optimizer=torch.optim.SGD(module.parameters(), 0.02),
        valid=DataLoader(TensorDataset(vx, vy), 100, shuffle=True),
        method=cpmlho.DeltaSTN(rank=rank),
        max_norm=5.0,
        check=False,
    )
    train(run, 5000, (x, y))
    optimum = min(exact(a, b) for a in grid for b in grid)
    assert best <= exact(run.values["a"], run.values["b"]) / optimum < worst


# --- The package. ---


@pytest.mark.slow
def test_it_needs_torch_alone():
    code = """
import sys
for name in ("pydantic", "pandas", "mlflow", "yaml", "snakemake", "scipy", "sklearn", "skopt", "matplotlib", "psutil"):
    sys.modules[name] = None
import cpmlho
for name in cpmlho.__all__:
    getattr(cpmlho, name)
assert not [name for name in sys.modules if name.startswith("cpmlho.study")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_version_and_unknown_names():
    assert cpmlho.__version__.count(".") == 2
    with pytest.raises(AttributeError, match=re.escape("module 'cpmlho' has no attribute 'Tunr'; it has CPMLHO")):
        cpmlho.Tunr  # noqa: B018
