"""What a Tuner refuses or points out: set-ups that would tune nothing, or something else, without a word."""

import pytest
import torch
import torch.nn.functional as F
from setups import RATE, SPACE, X, Y, decayed, entropy, mlp, quietly, train, tuner
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import cpmlho
from cpmlho.core.loading import rows

TWO = {"a": cpmlho.Uniform(0, 1), "b": cpmlho.Uniform(0, 1)}


class TimeFirst(nn.Module):
    """It takes (B, T, 4), but its layers see (T, B, 4)."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.inner(x.transpose(0, 1)).tanh()).mean(0)


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False)


def refused(message, act, error=ValueError):
    with pytest.raises(error, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)


# --- Arguments: refused when the Tuner is made. ---

ARGUMENTS = [
    ("must be a torch.nn.Module", lambda m: tuner(lambda x: x, optimizer=torch.optim.SGD(m.parameters(), 0.1))),
    ("DataParallel does not work in a Tuner", lambda m: tuner(nn.DataParallel(m))),
    ("the module inside", lambda m: tuner(nn.Sequential(nn.DataParallel(m)))),
    ("no nn.Linear or convolution that trains", lambda m: tuner(nn.LayerNorm(4))),
    ("lazy layers: call it once", lambda m: tuner(nn.Sequential(nn.LazyLinear(3)))),
    ("0.weight is in torch.bfloat16: keep.*autocast=torch.bfloat16", lambda m: tuner(m.bfloat16())),
    ("the space is empty", lambda m: tuner(space={})),
    ("space must be a dictionary", lambda m: tuner(space=["r"])),
    (r"space\['r'\] must be cpmlho.Uniform or cpmlho.LogUniform", lambda m: tuner(space={"r": (0, 1)})),
    ("the name 'read' is taken", lambda m: tuner(space={"read": RATE})),
    (r"Dropout\('rate'\), but the space has no 'rate' \(it has r\)", lambda m: tuner(mlp(cpmlho.Dropout("rate")))),
    ("train_loss must be a function of .net, batch, h.*swapped", lambda m: tuner(m, entropy, decayed)),
    ("valid_loss must be a function of .net, batch.", lambda m: tuner(m, decayed, decayed)),
    ("optimizer must be a torch.optim.Optimizer, got list", lambda m: tuner(m, optimizer=[(X, Y)], valid=X)),
    ("LBFGS evaluates its loss several times", lambda m: tuner(m, optimizer=torch.optim.LBFGS(m.parameters()))),
    ("valid must give batches.*got Tensor", lambda m: tuner(m, valid=X)),
    (r"method must be cpmlho.DeltaSTN\(\).*got 'stn'", lambda m: tuner(m, method="stn")),
    ("method must be", lambda m: tuner(m, method=cpmlho.STN)),
    ("cut_every of CPMLHO count epochs: give steps", lambda m: tuner(method=cpmlho.CPMLHO(cut_steps=None))),
    (
        "cutting planes do not work with autocast=torch.float16",
        lambda m: tuner(method=cpmlho.CPMLHO(), autocast=torch.float16),
    ),
    ("low < start < high must hold, got 0, 1, 1", lambda m: cpmlho.Uniform(0, 1, 1)),
    ("must be above 0, got 0", lambda m: cpmlho.LogUniform(0, 1)),
    *(
        ("learning_rate must be above 0, got", lambda m, rate=rate: cpmlho.Uniform(0, 1, learning_rate=rate))
        for rate in (0, -1, float("inf"), float("nan"))
    ),
    (r"delta_stn or temperature, got 'stn': use STN\(\)", lambda m: cpmlho.DeltaSTN(response="stn")),
    *(
        (message, lambda m, make=make, options=options: make(**options))
        for make, options, message in (
            (cpmlho.DeltaSTN, {"response": "temperature", "rank": 2}, "rank must be 1 with response"),
            (cpmlho.DeltaSTN, {"response_weights": "tied", "rank": 2}, "rank must be 1 with response"),
            (cpmlho.CPMLHO, {"response": "temperature"}, "^cutting_planes must be false with .*the planes act on R"),
            (cpmlho.CPMLHO, {"response_weights": "tied"}, "^cutting_planes must be false with .*the planes act on R"),
            (cpmlho.CPMLHO, {"response_weights": "mean"}, "^cutting_planes must be false with .*the planes act on R"),
        )
    ),
    ("no tensor in a int.*rows=lambda", lambda m: rows(3)),
    ("lengths 3, 8", lambda m: rows((X, Y[:3]))),
    ("no batches to evaluate on", lambda m: tuner().evaluate([])),
    ("no batches to take the gradient on", lambda m: tuner().hypergradient([])),
    ("no best state is kept", lambda m: tuner().load_best()),
    ("must begin with the start values at step 0", lambda m: cpmlho.replay([])),
]


@pytest.mark.parametrize(("message", "make"), ARGUMENTS)
def test_what_cannot_work_is_refused_in_one_line(message, make):
    refused(message, lambda: make(mlp()))


def test_options_that_go_together_are_accepted():
    for options in ({"response": "temperature"}, {"response_weights": "tied"}, {"response_weights": "mean"}):
        cpmlho.CPMLHO(cutting_planes=False, **options)


@pytest.mark.parametrize("package", ["accelerate", "lightning", "pytorch_lightning"])
def test_a_wrapped_optimizer_is_refused_and_the_one_inside_it_works(package):
    """accelerate's wrapper is an `Optimizer`, Lightning's takes the methods of the one inside."""
    module = mlp()
    base = torch.optim.Optimizer if package == "accelerate" else object
    wrapper = type("Wrapped", (base,), {"__init__": lambda self: None, "__module__": f"{package}.optimizer"})()
    wrapper.optimizer = torch.optim.SGD(module.parameters(), 0.1)
    message = r"a Wrapped decides itself when it steps: give .* inside it, optimizer.optimizer$"
    refused(message, lambda: tuner(module, optimizer=wrapper))
    quietly(tuner(module, optimizer=wrapper.optimizer), 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": cpmlho.STN()}, r"its method: {'response': 'delta_stn',.*, this one's: {'response': 'stn',"),
        ({"method": cpmlho.CPMLHO(response_start="weights", bias_correction=True)}, "its method: {'rank': 1}"),
        ({"space": {"r": cpmlho.LogUniform(1e-4, 1, 0.3)}}, r"its ranges: \[\['Uniform', 0, 1\]\]"),
        ({"space": {"r": cpmlho.Uniform(0, 5)}}, "ranges"),
        ({"space": {"other": RATE}}, r"its space: \['r'\], this one's: \['other'\]"),
        ({"module": nn.Linear(4, 3)}, r"its responding weights: \['0.weight.R'"),
    ],
)
def test_a_state_of_another_tuner_is_refused(change, message):
    refused(f"of another tuner.*{message}", lambda: tuner(**change).load_state_dict(tuner().state_dict()))


# --- Losses: refused in the first step. ---


def test_a_hyperparameter_that_acts_nowhere():
    run = tuner(mlp(cpmlho.Dropout("rate")), space={**SPACE, "rate": RATE, "ratee": RATE})
    refused(r"'ratee' acts nowhere.*what is used is h.r, cpmlho.Dropout\('rate'\)", lambda: train(run))


@pytest.mark.parametrize("name", ["lr", "learning_rate", "momentum", "weight_decay"])
def test_what_steers_the_optimizer_cannot_be_tuned(name):
    more = r"and add h.weight_decay \* net.l2\(\)" if name == "weight_decay" else "$"
    message = f"'{name}' acts nowhere.*no response to learn; leave '{name}' out of the space *{more}"
    refused(message, lambda: train(tuner(space={**SPACE, name: RATE})))


HALVES = "'r' of one example changes the losses of others: use h.r"
OUTSIDE = "'r' changes train_loss, but not its gradient through net"
SHAPE = r"train_loss must return one loss an example, shape \(8,\), got "
TRAIN_LOSSES = [
    (HALVES, lambda net, batch, h: entropy(net, batch) + h.r.mean() * net.l2()),
    (HALVES, lambda net, batch, h: entropy(net, batch) + h.r[5] * net.l2()),
    (
        HALVES,
        lambda net, batch, h: F.cross_entropy(net(batch[0]), batch[1], reduction="none", label_smoothing=h.r[0].item()),
    ),
    (HALVES, lambda net, batch, h: entropy(net, (F.dropout(batch[0], h.r[3].item()), batch[1]))),
    (OUTSIDE, lambda net, batch, h: entropy(net, batch) + h.r),
    (OUTSIDE, lambda net, batch, h: entropy(net, batch) + h.r * net.own[0].square().sum()),
    ("acts nowhere.*although it is used: is what h.r acts on 0", lambda net, batch, h: entropy(net, batch) + 0 * h.r),
    (SHAPE + r"shape \(\)", lambda net, batch, h: decayed(net, batch, h).mean()),
    (SHAPE + r"shape \(8, 1\)", lambda net, batch, h: decayed(net, batch, h)[:, None]),
    (SHAPE + "list", lambda net, batch, h: [*decayed(net, batch, h)]),
    ("never called net", lambda net, batch, h: h.r * batch[0].sum(1)),
    ("no response reaches train_loss", lambda net, batch, h: h.r * net(batch[0]).detach().new_ones(8)),
]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("message", "loss"), TRAIN_LOSSES)
def test_a_training_loss_without_a_response_is_refused(message, loss, norm):
    module = mlp(*[nn.BatchNorm1d(6)] * norm, nn.Tanh())
    module.own = [module[0].weight]  # without a response
    refused(message, lambda: train(tuner(module, loss)))


def test_an_unknown_name_in_a_loss():
    run = tuner(train_loss=lambda net, batch, h: decayed(net, batch, h) * h.dcay)
    refused("no hyperparameter 'dcay'; it has r", lambda: train(run), AttributeError)


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
    quietly(tuner(mlp(), act), 6)


@pytest.mark.parametrize("start", [0.2, 0.5])
def test_a_value_in_the_middle_of_its_range_acts(start):
    """The values that the check spreads over the examples have the middle as their mean."""
    run = tuner(
        nn.Sequential(nn.Linear(4, 1)),
        lambda net, batch, h: (net(batch[0])[:, 0] - 1) ** 2 + h.r * net.l2(),
        lambda net, batch: net(batch[0])[:, 0] ** 2,
        space={"r": cpmlho.Uniform(0, 1, start)},
    )
    quietly(run)


@torch.no_grad()
def without_gradient(net, batch):
    return entropy(net, batch)


@pytest.mark.parametrize(
    ("message", "valid_loss"),
    [
        ("has no gradient through net", lambda net, batch: (net(batch[0]).argmax(1) == batch[1]).float()),
        ("has no gradient through net", without_gradient),
        ("never called net", lambda net, batch: batch[0].sum()),
        ("is a sum over the batch", lambda net, batch: entropy(net, batch).sum()),
        (r"must return one loss an example, shape \(8,\)", lambda net, batch: entropy(net, batch)[:, None]),
    ],
)
def test_a_validation_loss_that_cannot_be_descended_is_refused(message, valid_loss):
    refused(f"valid_loss {message}", lambda: train(tuner(valid_loss=valid_loss)))


def test_a_mean_as_the_validation_loss_passes():
    quietly(tuner(valid_loss=lambda net, batch: entropy(net, batch).mean()), 6)


@pytest.mark.parametrize(
    ("message", "module"),
    [
        (r"hardsigmoid_backward.*cpmlho.STN\(\)", lambda: mlp(nn.Hardsigmoid())),
        (r"glu.*cpmlho.STN\(\)", lambda: nn.Sequential(nn.Linear(4, 12), nn.GLU(), nn.Linear(6, 3))),
        ("switch activation checkpointing off", Checkpointed),
        ("gets 13 rows from a batch of 8 examples", TimeFirst),
    ],
)
def test_a_module_that_cannot_be_linearised_is_refused(message, module):
    batch = (torch.randn(8, 13, 4), Y) if module is TimeFirst else (X, Y)
    refused(message, lambda: train(tuner(module()), batch=batch))


def test_a_module_in_evaluation_mode_is_not_trained():
    run = tuner()
    run.module.eval()
    refused(r"call module.train\(\)", lambda: train(run))


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_gradients_that_are_off_are_named(off):
    run = tuner()
    with off():
        refused("gradients are off: call tuner.step outside torch.no_grad", lambda: train(run))


# --- Later steps. ---


@pytest.mark.parametrize("level", ["train_loss", "valid_loss"])
def test_a_loss_that_is_not_finite(level):
    wrong = {"train_loss": decayed, "valid_loss": entropy}[level]
    scale = torch.ones(8)
    losses = {level: lambda net, batch, *h: wrong(net, batch, *h) / batch[2].min()}
    run = tuner(**losses, valid=[(X, Y, scale)], method=cpmlho.STN(train_steps=2))
    run.step((X, Y, scale))
    scale[3] = 0
    refused(rf"^{level} is not finite at step 2, with r ", lambda: run.step((X, Y, scale)), FloatingPointError)


@pytest.mark.parametrize(
    ("valid", "message"),
    [([], "valid gives no batch"), (iter([(X, Y)]), "an iterator gives each batch once: give the loader itself")],
)
def test_validation_data_that_end_are_named(valid, message):
    refused(message, lambda: train(tuner(valid=valid), 10))


# --- What is pointed out. ---


def zeros(module):
    for layer in (module[0], module[-1]):
        for p in layer.parameters():
            nn.init.zeros_(p)
    return module


WARNINGS = [
    (
        lambda m: tuner(m, optimizer=torch.optim.AdamW(m.parameters(), 0.01)),
        ["weights decay twice: by net.l2.. in train_loss and by the optimizer's"],
    ),
    (
        lambda m: tuner(m, lambda net, batch, h: decayed(net, batch, h) + m[2](torch.zeros(6))[0]),
        [r"also the module without it \(2\)"],
    ),
    (
        lambda m: tuner(
            nn.Linear(4, 1),
            lambda net, batch, h: (net(batch[0])[:, 0] - 1) ** 2 + (h.a + h.b) * net.l2(),
            lambda net, batch: (net(batch[0])[:, 0] - 1) ** 2,
            space=TWO,
        ),
        [r"2 hyperparameters share 1 responding output.*DeltaSTN\(rank=2\)"],
    ),
    (lambda m: tuner(zeros(mlp(nn.BatchNorm1d(6)))), ["do not respond to hyperparameters: 1.weight, 1.bias"]),
    (
        lambda m: tuner(unused := Unused(), optimizer=torch.optim.SGD([*unused[0].parameters(), unused.unused], 0.1)),
        [
            "do not respond to hyperparameters: unused, 1.weight, 1.bias",
            "the optimizer does not hold them: 1.weight, 1.bias, 2.weight, 2.bias",
            "train_loss does not depend on them: unused",
        ],
    ),
]


class Unused(nn.Sequential):
    def __init__(self):
        super().__init__(*mlp(nn.LayerNorm(6)))
        self.register_parameter("unused", nn.Parameter(torch.zeros(2)))


@pytest.mark.parametrize(("make", "messages"), WARNINGS)
def test_what_trains_otherwise_than_one_might_think_is_said_once(make, messages):
    run = make(mlp())
    with pytest.warns(cpmlho.TunerWarning) as caught:
        train(run)
    assert len(caught) == len(messages)
    for warning, message in zip(caught, messages, strict=True):
        with pytest.raises(cpmlho.TunerWarning, match=message):
            raise warning.message
    quietly(run)


def test_examples_that_touch_each_other_are_pointed_out():
    x = torch.randn(8, 16, 4)
    with pytest.warns(cpmlho.TunerWarning, match="first example's hyperparameters change the losses of others"):
        tuner(TimeFirst(), valid=[(x, Y)]).step((x, Y))


def test_a_weight_that_trains_later_is_pointed_out_once():
    module = mlp()
    module[0].requires_grad_(False)
    run = quietly(tuner(module))
    module[0].requires_grad_(True)
    with pytest.warns(cpmlho.TunerWarning, match="frozen when the Tuner was made.*: 0.weight"):
        train(run)
    quietly(run)


# --- The checks leave no trace. ---


def test_the_checks_change_neither_weights_nor_randomness():
    def end(check):
        module = mlp(nn.BatchNorm1d(6), nn.Dropout(0.3))
        run = tuner(module, check=check, valid=DataLoader(TensorDataset(X, Y), 3, shuffle=True))
        return train(run, 12).values, module.state_dict(), torch.rand(())

    (checked, state, drawn), (plain, expected, other) = end(True), end(False)
    assert checked == plain
    assert drawn == other
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_an_iterator_loses_no_batch_to_the_checks():
    seen = []

    def valid_loss(net, batch):
        seen.append(batch[2])
        return entropy(net, batch)

    batches = iter([(X, Y, "first"), (X, Y, "second")])
    quietly(tuner(valid_loss=valid_loss, valid=batches, method=cpmlho.STN(train_steps=1)), 2)
    assert seen[-2:] == ["first", "second"]
