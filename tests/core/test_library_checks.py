"""What a Tuner refuses or points out: set-ups that would tune nothing, or something else, without a word."""

import copy
import dataclasses
import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import cpmlho

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 3
SPACE = {"r": cpmlho.Uniform(0, 1, 0.3)}


def mlp(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), *(middle or [nn.Tanh()]), nn.Linear(6, 3))


def entropy(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1], reduction="none")


def decayed(net, batch, h):
    return entropy(net, batch) + h.r * net.l2()


def tuner(module=None, train_loss=decayed, valid_loss=entropy, *, space=SPACE, optimizer=None, **named):
    module = module or mlp()
    optimizer = optimizer or torch.optim.SGD(module.parameters(), 0.1)
    return cpmlho.Tuner(module, space, train_loss, valid_loss, optimizer, named.pop("valid", [(X, Y)]), **named)


def silent(run, steps=1):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(steps):
            run.step((X, Y))


# --- Hyperparameters that act, but not for each example, or not through net. ---


@pytest.mark.parametrize(
    "act",
    [
        lambda net, batch, h: entropy(net, batch) + h.r.mean() * net.l2(),
        lambda net, batch, h: entropy(net, batch) + h.r[5] * net.l2(),
        lambda net, batch, h: F.cross_entropy(net(batch[0]), batch[1], reduction="none", label_smoothing=h.r[0].item()),
        lambda net, batch, h: F.cross_entropy(net(F.dropout(batch[0], h.r[3].item())), batch[1], reduction="none"),
    ],
    ids=["mean", "index", "item", "dropout of an item"],
)
@pytest.mark.parametrize("norm", [False, True])
def test_one_value_for_all_examples_is_refused(act, norm):
    run = tuner(mlp(*[nn.BatchNorm1d(6)] * norm, nn.Tanh()), act)
    with pytest.raises(ValueError, match=r"'r' of one example changes the losses of others: use h.r") as caught:
        run.step((X, Y))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("outside", ["module's weights", "term of its own"])
def test_what_acts_without_net_is_refused(outside):
    module = mlp()

    def act(net, batch, h):
        penalty = module[0].weight.square().sum() if outside == "module's weights" else 1
        return entropy(net, batch) + h.r * penalty

    with pytest.raises(ValueError, match="'r' changes train_loss, but not its gradient through net"):
        tuner(module, act).step((X, Y))


@pytest.mark.parametrize(
    "act",
    [
        decayed,
        lambda net, batch, h: cpmlho.cross_entropy(net(batch[0]), batch[1], label_smoothing=h.r),
        lambda net, batch, h: torch.stack(
            [
                F.cross_entropy(x, y, label_smoothing=r.item())
                for x, y, r in zip(net(batch[0]), batch[1], h.r, strict=True)
            ]
        ),
        lambda net, batch, h: entropy(net, (cpmlho.noise(batch[0], h.r, generator=h.generator), batch[1])),
        lambda net, batch, h: entropy(
            net, (batch[0] * torch.distributions.Gamma(h.r, h.r).sample()[:, None], batch[1])
        ),
        lambda net, batch, h: entropy(net, batch) + h.r * sum(p.abs().flatten(1).sum(1) for p in net.parameters()),
    ],
    ids=["decay", "smoothing", "smoothing in a loop", "noise", "rejection sampling", "L1"],
)
def test_what_acts_for_each_example_passes(act):
    silent(tuner(mlp(), act), steps=6)


@pytest.mark.parametrize("start", [0.2, 0.5])
def test_a_value_in_the_middle_of_its_range_acts(start):
    """The values that the check spreads over the examples have the middle as their mean."""
    module = nn.Sequential(nn.Linear(4, 1))
    run = tuner(module, lambda net, batch, h: (net(batch[0])[:, 0] - 1) ** 2 + h.r * net.l2(),
                lambda net, batch: net(batch[0])[:, 0] ** 2, space={"r": cpmlho.Uniform(0, 1, start)})  # fmt: skip
    silent(run)


def test_the_checks_change_neither_weights_nor_randomness():
    def end(check):
        module = mlp(nn.BatchNorm1d(6), nn.Dropout(0.3))
        data = TensorDataset(X, Y)
        run = tuner(module, check=check, valid=DataLoader(data, 3, shuffle=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(12):
                run.step((X, Y))
        return run.values, module.state_dict(), torch.rand(())

    (checked, state, drawn), (plain, expected, other) = end(True), end(False)
    assert checked == plain
    assert drawn == other
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_smoothing_for_each_example_equals_torchs():
    logits, s = torch.randn(8, 3, 5, dtype=torch.float64), torch.linspace(0, 0.9, 8, dtype=torch.float64)
    labels = torch.randint(3, (8, 5))
    labels[2, 1:3] = -100
    found = cpmlho.cross_entropy(logits, labels, label_smoothing=s)
    expected = [
        F.cross_entropy(x[None], y[None], label_smoothing=a.item()) for x, y, a in zip(logits, labels, s, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(expected))
    flat = cpmlho.cross_entropy(logits[..., 0], labels[:, 0], label_smoothing=0.2)
    torch.testing.assert_close(
        flat, F.cross_entropy(logits[..., 0], labels[:, 0], reduction="none", label_smoothing=0.2)
    )


# --- Outputs, optimizers, states, buffers. ---


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


def test_outputs_in_a_dataclass_are_linearised():
    values = []
    for plain in (True, False):
        torch.manual_seed(0)
        module = Structured(plain)

        def loss(net, batch, h, plain=plain):
            out = net(batch[0])
            return F.cross_entropy(out if plain else out.logits, batch[1], reduction="none") + h.r * net.l2()

        run = tuner(module, loss, lambda net, batch, loss=loss: loss(net, batch, SimpleNamespace(r=0.0)))
        silent(run, steps=20)
        values.append((run.values, *(r.H.clone() for r in run.bilevel.layers.response)))
    assert values[0][0] == values[1][0]
    for one, two in zip(values[0][1:], values[1][1:], strict=True):
        assert torch.equal(one, two)


def test_outputs_that_hide_tensors_are_refused():
    module = nn.Sequential(nn.Linear(4, 3))
    module.register_forward_hook(lambda module, inputs, out: SimpleNamespace(logits=out))
    run = tuner(module, lambda net, batch, h: entropy(lambda x: net(x).logits, batch) + h.r * net.l2())
    with pytest.raises(TypeError, match="output holds a SimpleNamespace, in which the tuner cannot find tensors"):
        run.step((X, Y))


def test_each_group_of_the_optimizer_has_its_rate_in_the_response():
    module = mlp()
    groups = [{"params": module[0].parameters(), "lr": 0.0}, {"params": module[2].parameters(), "lr": 0.1}]
    run = tuner(module, optimizer=torch.optim.SGD(groups, 0.1))
    run.step((X, Y))
    first, second = (r.H for r in run.bilevel.layers.response)
    assert not first.any()
    assert second.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": cpmlho.STN()}, r"its method: {'response': 'delta_stn',.*, this one's: {'response': 'stn',"),
        ({"space": {"r": cpmlho.LogUniform(1e-4, 1, 0.3)}}, r"its ranges: \[\['Uniform', 0, 1\]\]"),
        ({"space": {"r": cpmlho.Uniform(0, 5)}}, "ranges"),
    ],
)
def test_a_state_of_another_method_or_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tuner(**change).load_state_dict(tuner().state_dict())


@pytest.mark.parametrize("rank", [1, 2])
def test_a_state_in_memory_stays_as_it_was_taken(rank):
    run = tuner(method=cpmlho.DeltaSTN(rank=rank))
    run.step((X, Y))
    state = run.state_dict()
    kept, values = copy.deepcopy(state["module"]), run.values
    silent(run, steps=10)
    assert run.values != values
    run.load_state_dict(state)
    assert run.values == values
    assert all(torch.equal(run.module.state_dict()[name], kept[name]) for name in kept)
    silent(run, steps=10)
    assert all(torch.equal(state["module"][name], kept[name]) for name in kept)


def test_weight_decay_twice_is_pointed_out():
    module = mlp()
    with pytest.warns(cpmlho.TunerWarning, match="decay twice: by net.l2.. in train_loss and by the optimizer's"):
        tuner(module, optimizer=torch.optim.AdamW(module.parameters(), 0.01)).step((X, Y))


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


def test_buffers_move_once_a_step():
    module = mlp(Counting())
    run = tuner(module, method=cpmlho.CPMLHO(cutting_planes=False, upper_regularised=True, train_steps=1))
    silent(run, steps=3)
    assert module[1].calls == 3
    assert torch.equal(run.evaluate([(X, Y)]) and module[1].calls, torch.tensor(4.0))


def test_ddp_inside_a_wrapper_is_refused():
    inner = nn.DataParallel(mlp())
    with pytest.raises(ValueError, match="inside"):
        tuner(nn.Sequential(inner))


# --- Smaller. ---


def test_a_weight_that_trains_later_is_pointed_out_once():
    module = mlp()
    module[0].requires_grad_(False)
    run = tuner(module)
    silent(run)
    module[0].requires_grad_(True)
    with pytest.warns(cpmlho.TunerWarning, match="frozen when the Tuner was made.*: 0.weight"):
        run.step((X, Y))
    silent(run)


def test_another_optimizer_step_changes_nothing():
    run = tuner()
    run.step((X, Y))
    kept = copy.deepcopy(run.module.state_dict())
    run.optimizer.step()
    assert all(torch.equal(run.module.state_dict()[name], kept[name]) for name in kept)


def test_zero_weights_do_not_start_a_response():
    module = mlp()
    nn.init.zeros_(module[2].weight)
    run = tuner(module, method=cpmlho.DeltaSTN(response_start="weights", response_weights="frozen"))
    first, second = run.bilevel.layers.response
    assert torch.equal(first.R, module[0].weight)
    assert second.R.any()


def test_a_delta_stn_that_is_an_stn_is_refused():
    with pytest.raises(ValueError, match=r"delta_stn or temperature, got 'stn': use STN\(\)"):
        cpmlho.DeltaSTN(response="stn")


@pytest.mark.parametrize("options", [{"response": "temperature"}, {"response_weights": "tied"}])
def test_a_rank_that_has_no_place_is_refused(options):
    with pytest.raises(ValueError, match="rank must be 1 with response"):
        cpmlho.DeltaSTN(**options, rank=2)


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
        module,
        noisy,
        squares,
        space={"a": range_, "b": range_},
        optimizer=torch.optim.SGD(module.parameters(), 0.02),
        valid=DataLoader(TensorDataset(vx, vy), 100, shuffle=True),
        method=cpmlho.DeltaSTN(rank=rank),
        max_norm=5.0,
        check=False,
    )
    for _ in range(5000):
        run.step((x, y))
    optimum = min(exact(a, b) for a in grid for b in grid)
    assert best <= exact(run.values["a"], run.values["b"]) / optimum < worst


def test_a_loss_that_calls_module_and_net():
    module = mlp()
    run = tuner(module, lambda net, batch, h: decayed(net, batch, h) + module[2](torch.zeros(6))[0])
    with pytest.warns(cpmlho.TunerWarning, match=r"also the module without it \(2\)"):
        run.step((X, Y))


def test_more_hyperparameters_than_outputs():
    module = nn.Sequential(nn.Linear(4, 1))
    space = {"a": cpmlho.Uniform(0, 1), "b": cpmlho.Uniform(0, 1)}
    run = tuner(module, lambda net, batch, h: (net(batch[0])[:, 0] - 1) ** 2 + (h.a + h.b) * net.l2(),
                lambda net, batch: (net(batch[0])[:, 0] - 1) ** 2, space=space)  # fmt: skip
    with pytest.warns(cpmlho.TunerWarning, match=r"2 hyperparameters share 1 responding output.*DeltaSTN\(rank=2\)"):
        run.step((X, Y))


# --- Errors that help. ---


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: mlp(nn.Hardsigmoid()), r"hardsigmoid_backward.*cpmlho.STN\(\)"),
        (lambda: nn.Sequential(nn.Linear(4, 12), nn.GLU(), nn.Linear(6, 3)), r"glu.*cpmlho.STN\(\)"),
        (Checkpointed, "switch activation checkpointing off"),
    ],
    ids=["Hardsigmoid", "GLU", "checkpoint"],
)
def test_an_operation_that_cannot_be_linearised_is_named_in_the_first_step(module, message):
    with pytest.raises(ValueError, match=message) as caught:
        tuner(module()).step((X, Y))
    assert "\n" not in str(caught.value)


def accuracy(net, batch):
    return (net(batch[0]).argmax(1) == batch[1]).float()


@torch.no_grad()
def without_gradient(net, batch):
    return entropy(net, batch)


@pytest.mark.parametrize(
    ("valid_loss", "message"),
    [
        (accuracy, "valid_loss has no gradient through net"),
        (without_gradient, "valid_loss has no gradient through net"),
        (lambda net, batch: batch[0].sum(), "valid_loss never called net"),
        (lambda net, batch: entropy(net, batch).sum(), "valid_loss is a sum over the batch"),
        (lambda net, batch: entropy(net, batch)[:, None], r"valid_loss must return one loss an example, shape \(8,\)"),
    ],
)
def test_a_validation_loss_that_cannot_be_descended_is_refused_in_the_first_step(valid_loss, message):
    with pytest.raises(ValueError, match=message):
        tuner(valid_loss=valid_loss).step((X, Y))


def test_an_iterator_loses_no_batch_to_the_checks():
    seen = []

    def valid_loss(net, batch):
        seen.append(batch[2])
        return entropy(net, batch)

    run = tuner(
        valid_loss=valid_loss, valid=iter([(X, Y, "first"), (X, Y, "second")]), method=cpmlho.STN(train_steps=1)
    )
    silent(run, steps=2)
    assert seen[-2:] == ["first", "second"]


def wrapped(module, package):
    """An optimizer in a wrapper: accelerate's is an `Optimizer`, Lightning's takes the methods of the one inside."""
    inner = torch.optim.SGD(module.parameters(), 0.1)
    base = torch.optim.Optimizer if package == "accelerate" else object
    wrapper = type("Wrapped", (base,), {"__init__": lambda self: None, "__module__": f"{package}.optimizer"})()
    wrapper.optimizer = inner
    return wrapper


@pytest.mark.parametrize("package", ["accelerate", "lightning", "pytorch_lightning"])
def test_a_wrapped_optimizer_is_refused_and_the_one_inside_it_works(package):
    module = mlp()
    wrapper = wrapped(module, package)
    with pytest.raises(
        ValueError, match=r"a Wrapped decides itself when it steps: give .* inside it, optimizer.optimizer$"
    ):
        tuner(module, optimizer=wrapper)
    silent(tuner(module, optimizer=wrapper.optimizer), steps=6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: tuner(m, method="stn"), r"method must be cpmlho.DeltaSTN\(\).*got 'stn'"),
        (lambda m: tuner(m, method=cpmlho.STN), "method must be"),
        (lambda m: tuner(m.bfloat16()), "0.weight is in torch.bfloat16: keep.*autocast=torch.bfloat16"),
        (lambda m: tuner(m, optimizer=[(X, Y)], valid=X), "optimizer must be a torch.optim.Optimizer, got list"),
        (lambda m: tuner(m, valid=X), "valid must give batches.*got Tensor"),
        (lambda m: tuner(m, entropy, decayed), "train_loss must be a function of .net, batch, h.*swapped"),
        (lambda m: tuner(m, decayed, decayed), "valid_loss must be a function of .net, batch."),
        (lambda m: tuner(m, space={"read": cpmlho.Uniform(0, 1)}), "the name 'read' is taken"),
        (lambda m: tuner(m, space=["r"]), "space must be a dictionary"),
    ],
)
def test_wrong_arguments_are_named_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(mlp())
    assert "\n" not in str(caught.value)


def test_a_value_that_is_read_but_changes_nothing():
    with pytest.raises(ValueError, match=r"acts nowhere.*although it is used: is what h.r acts on 0"):
        tuner(train_loss=lambda net, batch, h: entropy(net, batch) + 0 * h.r * net.l2()).step((X, Y))


# --- What net gives. ---


def test_net_calls_any_method_and_submodule():
    torch.manual_seed(0)
    module = Structured(True)

    def loss(net, batch, h):
        return F.cross_entropy(net.encode(batch[0])[:, :3], batch[1], reduction="none") + h.r * net.l2()

    run = tuner(module, loss, lambda net, batch: F.cross_entropy(net.encode(batch[0])[:, :3], batch[1]))
    with pytest.warns(cpmlho.TunerWarning, match="do not respond"):  # the last layer
        run.step((X, Y))
    assert run.bilevel.layers.response[0].H.any()
    assert run.net.plain is True
    torch.testing.assert_close(run.net.inner(X), module(X))


@pytest.mark.parametrize("rank", [1, 3])
def test_net_gives_the_weights_of_each_example(rank):
    run = tuner(method=cpmlho.DeltaSTN(rank=rank))
    net = cpmlho.Net(run.bilevel.layers.responding_by(0.3), run.bilevel.values_at(torch.zeros(8, 1), "idle"),
                     torch.linspace(-1, 1, 8)[:, None])  # fmt: skip
    squares = sum(p.square().flatten(1).sum(1) for p in net.parameters()) / 2
    torch.testing.assert_close(squares, net.l2(lambda name: True))
    named = dict(net.named_parameters())
    assert named["0.weight"].shape == (8, 6, 4)
    out = torch.einsum("bi,boi->bo", X, named["0.weight"]) + named["0.bias"]
    out = torch.einsum("bi,boi->bo", out.tanh(), named["2.weight"]) + named["2.bias"]
    torch.testing.assert_close(net(X), out)


def test_an_l1_penalty_is_tuned():
    """Least of (w - 2)^2 / 2 + r |w| at w = 2 - r, so (w - 1)^2 at r = 1."""
    torch.manual_seed(0)
    module, one = nn.Linear(1, 1, bias=False), torch.ones(8, 1)

    def off(net, batch, target):
        return (net(batch)[:, 0] - target) ** 2 / 2

    run = cpmlho.Tuner(
        module,
        {"r": cpmlho.Uniform(0, 3, 0.3)},
        lambda net, batch, h: off(net, batch, 2) + h.r * sum(p.abs().flatten(1).sum(1) for p in net.parameters()),
        lambda net, batch: off(net, batch, 1),
        torch.optim.SGD(module.parameters(), 0.1),
        [one],
        method=cpmlho.DeltaSTN(perturbation_scale=0.2, entropy_weight=1e-4),
    )
    for _ in range(1500):
        run.step(one)
    assert run.values["r"] == pytest.approx(1, abs=0.1)


def test_the_version():
    assert cpmlho.__version__.count(".") == 2
