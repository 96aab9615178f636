"""A Tuner from outside: what it finds, what it says when something cannot work, how it resumes."""

import io
import re
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cpmlho
from cpmlho.core.loading import move, rows

# --- What cannot work says so. ---


def module(*, rate=None):
    torch.manual_seed(0)
    middle = nn.Tanh() if rate is None else cpmlho.Dropout(rate)
    return nn.Sequential(nn.Linear(4, 6), middle, nn.Linear(6, 3))


X, Y = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


def losses(net, batch, h):
    return F.cross_entropy(net(batch[0]), batch[1], reduction="none") + h.decay * net.l2()


def valid_loss(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1])


def tuner(net=None, *, space=None, train_loss=losses, optimizer=None, valid=((X, Y),), **named):
    net = module() if net is None else net
    space = {"decay": cpmlho.LogUniform(1e-6, 1e-1, 1e-3)} if space is None else space
    optimizer = torch.optim.SGD(net.parameters(), 0.1) if optimizer is None else optimizer
    return cpmlho.Tuner(net, space, train_loss, named.pop("valid_loss", valid_loss), optimizer, valid, **named)


RATE = cpmlho.Uniform(0, 0.9, 0.1)


def test_a_dropout_that_the_space_does_not_name():
    with pytest.raises(ValueError, match=r"Dropout\('rate'\), but the space has no 'rate' \(it has ratee\)"):
        tuner(module(rate="rate"), space={"ratee": RATE})


def test_a_hyperparameter_that_acts_nowhere():
    net = module(rate="rate")
    run = tuner(net, space={"rate": RATE, "ratee": RATE, "decay": RATE})
    with pytest.raises(ValueError, match=r"'ratee' acts nowhere.*what is used is h.decay, cpmlho.Dropout\('rate'\)"):
        run.step((X, Y))


@pytest.mark.parametrize("name", ["lr", "learning_rate", "momentum"])
def test_a_learning_rate_in_the_space(name):
    run = tuner(space={"decay": RATE, name: RATE})
    with pytest.raises(ValueError, match=f"'{name}' acts nowhere.*no response to learn; leave '{name}' out"):
        run.step((X, Y))


def test_a_weight_decay_that_no_loss_reads():
    run = tuner(space={"decay": RATE, "weight_decay": RATE})
    with pytest.raises(ValueError, match=r"add h.weight_decay \* net.l2\(\) to the loss"):
        run.step((X, Y))


def test_an_unknown_name_in_a_loss():
    run = tuner(train_loss=lambda net, batch, h: losses(net, batch, h) * h.dcay)
    with pytest.raises(AttributeError, match="no hyperparameter 'dcay'; it has decay"):
        run.step((X, Y))


@pytest.mark.parametrize(
    ("wrong", "got"), [(lambda each: each.mean(), r"\(\)"), (lambda each: each[:, None], r"\(8, 1\)"), (sum, r"\(\)")]
)
def test_a_training_loss_that_is_no_row(wrong, got):
    run = tuner(train_loss=lambda net, batch, h: wrong(losses(net, batch, h)))
    with pytest.raises(ValueError, match=rf"train_loss must return one loss an example, shape \(8,\), got shape {got}"):
        run.step((X, Y))


def test_a_loss_that_calls_the_module_and_not_net():
    net = module()
    run = tuner(
        net, train_loss=lambda _, batch, h: F.cross_entropy(net(batch[0]), batch[1], reduction="none") * h.decay
    )
    with pytest.raises(ValueError, match="never called net"):
        run.step((X, Y))


def test_a_response_that_reaches_no_loss():
    run = tuner(train_loss=lambda net, batch, h: h.decay * net(batch[0]).detach().new_ones(8))
    with pytest.raises(ValueError, match="no response reaches train_loss"):
        run.step((X, Y))


@pytest.mark.parametrize("level", ["train_loss", "valid_loss"])
def test_a_loss_that_is_not_finite(level):
    wrong = {"train_loss": losses, "valid_loss": valid_loss}[level]
    run = tuner(
        **{level: lambda net, batch, *h: wrong(net, batch, *h) / batch[2].min()},
        valid=[(X, Y, scale := torch.ones(8))],
        method=cpmlho.STN(train_steps=2),
    )
    run.step((X, Y, scale))
    scale[3] = 0
    with pytest.raises(FloatingPointError, match=rf"^{level} is not finite at step 2, with decay "):
        run.step((X, Y, scale))


def test_what_does_not_respond_or_train_is_said_once():
    net = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3))
    net.register_parameter("unused", nn.Parameter(torch.zeros(2)))
    run = tuner(net, optimizer=torch.optim.SGD([*net[0].parameters(), net.unused], 0.1))
    with pytest.warns(cpmlho.TunerWarning) as caught:
        run.step((X, Y))
    said = " | ".join(str(each.message) for each in caught)
    assert "do not respond to hyperparameters: unused, 1.weight, 1.bias" in said
    assert "the optimizer does not hold them: 1.weight, 1.bias, 2.weight, 2.bias" in said
    assert "train_loss does not depend on them: unused" in said
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.step((X, Y))


def test_examples_that_touch_each_other_are_pointed_out():
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):  # (B, T, 4), but the layers see (T, B, 4)
            return self.head(self.inner(x.transpose(0, 1)).tanh()).mean(0)

    x = torch.randn(8, 16, 4)
    with pytest.warns(cpmlho.TunerWarning, match="first example's hyperparameters change the losses of others"):
        tuner(TimeFirst(), valid=[(x, Y)]).step((x, Y))
    with pytest.raises(ValueError, match="gets 13 rows from a batch of 8 examples"):
        tuner(TimeFirst()).step((x[:, :13], Y))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: tuner(lambda x: x, optimizer=torch.optim.SGD([nn.Parameter(X)], 0.1)), "must be a torch.nn.Module"),
        (lambda: tuner(nn.DataParallel(module())), "DataParallel does not work in a Tuner"),
        (lambda: tuner(nn.LayerNorm(4)), "no nn.Linear or convolution that trains"),
        (lambda: tuner(space={}), "the space is empty"),
        (lambda: tuner(space={"decay": (0, 1)}), r"space\['decay'\] must be cpmlho.Uniform or cpmlho.LogUniform"),
        (lambda: tuner(optimizer=torch.optim.LBFGS(module().parameters())), "LBFGS evaluates its loss several times"),
        (lambda: tuner(nn.Sequential(nn.LazyLinear(3))), "lazy layers: call it once"),
        (lambda: cpmlho.Uniform(0, 1, 1), "low < start < high must hold, got 0, 1, 1"),
        (lambda: cpmlho.LogUniform(0, 1), "must be above 0, got 0"),
        (lambda: rows(3), "no tensor in a int.*rows=lambda"),
        (lambda: rows((X, Y[:3])), "lengths 3, 8"),
        (lambda: tuner(method=cpmlho.CPMLHO(cut_steps=None)), r"cut_every of CPMLHO count epochs: give steps"),
        (lambda: tuner().evaluate([]), "no batches to evaluate on"),
        (lambda: tuner(valid=[], method=cpmlho.DeltaSTN(train_steps=1)).step((X, Y)), "valid gives no batch"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(wrong, message):
    with pytest.raises(ValueError, match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_a_module_in_evaluation_mode_is_not_trained():
    run = tuner()
    run.module.eval()
    with pytest.raises(ValueError, match=r"call module.train\(\)"):
        run.step((X, Y))


def test_dropout_alone_needs_a_rate():
    with pytest.raises(RuntimeError, match=r"Dropout\('rate'\) has no rate"):
        module(rate="rate")(X)
    assert (cpmlho.Dropout("rate", fixed=0.5)(torch.ones(100)) == 0).any()
    assert torch.equal(cpmlho.Dropout("rate").eval()(X), X)


# --- What must work. ---


def test_dropout_takes_a_rate_an_example_and_outside_a_step_the_present_one():
    net = module(rate="rate")
    run = tuner(net, space={"rate": cpmlho.Uniform(0, 0.9, 0.5), "decay": RATE})
    run.step((X, Y))
    dropped = net[1](torch.ones(4, 2000)).eq(0).double().mean(1)
    assert ((dropped - run.values["rate"]).abs() < 0.06).all()


def test_the_running_statistics_move_once_a_step_and_parts_keep_their_mode():
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    run = tuner(net, method=cpmlho.DeltaSTN(train_steps=1))
    net[2].eval()  # a norm that the user holds still
    for _ in range(3):
        run.step((X, Y))
    assert net[1].num_batches_tracked == 3
    assert net[2].num_batches_tracked == 0
    assert [part.training for part in net] == [True, True, False, True]


def test_a_decay_acts_though_all_weights_are_0_and_norms_touch_nobody():
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    for p in (*net[0].parameters(), *net[2].parameters()):
        nn.init.zeros_(p)
    with pytest.warns(cpmlho.TunerWarning) as caught:
        tuner(net).step((X, Y))
    assert [str(each.message)[:44] for each in caught] == ["these parameters train, but do not respond t"]
    assert net[1].num_batches_tracked == 1


def test_metrics_are_means_over_examples():
    run = tuner()
    found = run.evaluate(
        [(X, Y), (X[:2], Y[:2])],
        accuracy=lambda net, batch: (net(batch[0]).argmax(1) == batch[1]).float(),
        count=lambda net, batch: torch.tensor(float(len(batch[0]))),
    )
    outputs = run.module(torch.cat([X, X[:2]]))
    labels = torch.cat([Y, Y[:2]])
    assert found["accuracy"] == pytest.approx((outputs.argmax(1) == labels).double().mean().item())
    assert found["valid_loss"] == pytest.approx(F.cross_entropy(outputs, labels).item(), rel=1e-6)
    assert found["count"] == pytest.approx((8 * 8 + 2 * 2) / 10)
    assert run.module.training


def test_numbers_are_logged_at_each_update():
    logged = []
    run = tuner(log=lambda numbers, step: logged.append((step, set(numbers))), method=cpmlho.DeltaSTN(train_steps=2))
    for _ in range(5):
        run.step((X, Y))
    assert logged == [(2, {"train_loss", "valid_loss", "decay"}), (4, {"train_loss", "valid_loss", "decay"})]


def test_the_response_follows_the_optimizer_and_its_schedule():
    net = module()
    optimizer = torch.optim.AdamW(net.parameters(), 0.1, weight_decay=0.3, betas=(0.8, 0.9))
    run = tuner(net, optimizer=optimizer)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    run.step((X, Y))
    schedule.step()
    run.step((X, Y))
    (group,) = run.bilevel.response_optimizer.param_groups
    assert type(run.bilevel.response_optimizer) is torch.optim.AdamW
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.05, 0.0, (0.8, 0.9))


def test_a_plain_module_takes_what_stn_ended_at():
    run = tuner(method=cpmlho.STN(train_steps=2))
    for _ in range(10):
        run.step((X, Y))
    plain = module()
    plain.load_state_dict(run.module_state())
    assert not torch.allclose(plain(X), run.module(X))
    torch.testing.assert_close(plain(X), run.net(X))


@pytest.mark.parametrize("method", [cpmlho.DeltaSTN, cpmlho.STN, cpmlho.CPMLHO])
def test_it_resumes_to_the_same_bits(method):
    data = TensorDataset(X, Y)

    def make():
        noisy = cpmlho.Dropout("rate"), nn.BatchNorm1d(6), nn.Dropout(0.2)
        net = nn.Sequential(nn.Linear(4, 6), *noisy, nn.Linear(6, 3))
        return tuner(
            net,
            space={"rate": RATE, "decay": RATE},
            optimizer=torch.optim.Adam(net.parameters(), 0.01),
            valid=DataLoader(data, 3, shuffle=True),
            train=DataLoader(data, 3, shuffle=True, generator=torch.Generator().manual_seed(5)),
            method=method(train_steps=3),
            steps_per_epoch=4,
        )

    def epochs(run, count):
        for _ in range(count):
            for batch in DataLoader(data, 2, shuffle=True):
                run.step(batch)

    torch.manual_seed(1)
    whole = make()
    epochs(whole, 2)
    kept = io.BytesIO()
    torch.save(whole.state_dict(), kept)
    epochs(whole, 3)
    torch.manual_seed(2)
    other = make()
    other.load_state_dict(torch.load(io.BytesIO(kept.getvalue()), weights_only=True))
    epochs(other, 3)
    assert other.values == whole.values
    assert other.steps == whole.steps == 20
    for one, two in zip(other.module.state_dict().values(), whole.module.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_a_state_of_another_tuner_is_refused():
    state = tuner().state_dict()
    with pytest.raises(ValueError, match=r"of another tuner: its space: \['decay'\], this one's: \['other'\]"):
        tuner(space={"other": RATE}).load_state_dict(state)


def test_bfloat16_autocast_keeps_parameters_and_finds_about_the_same():
    found = []
    for autocast in (None, torch.bfloat16):
        run = tuner(nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)), autocast=autocast)
        torch.manual_seed(0)
        for part in (run.module[0], run.module[2]):
            part.reset_parameters()
        for _ in range(25):
            run.step((X, Y))
        assert all(p.dtype == torch.float32 for p in run.module.parameters())
        found.append(run.values["decay"])
    assert found[1] == pytest.approx(found[0], rel=0.05)
    assert found[1] != found[0]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU"))])  # fmt: skip
def test_it_moves_and_goes_on(device):
    run = tuner(optimizer=None)
    run.step((X, Y))
    assert run.to(device) is run
    for _ in range(10):
        run.step((X, Y))
    assert {p.device.type for p in (*run.module.parameters(), *run.bilevel.layers.parameters, run.bilevel.lam)} == {
        device
    }


def test_a_compiled_module():
    net = torch.compile(module(), backend="eager")
    run = tuner(net, optimizer=torch.optim.SGD(net.parameters(), 0.1))
    plain = tuner(optimizer=None)
    for _ in range(7):
        run.step((X, Y))
        plain.step((X, Y))
    assert run.values == pytest.approx(plain.values)


def test_batches_of_any_structure():
    batch = {"x": X, "more": [Y, {"z": X}], "what": "text", "factor": torch.tensor(2.0)}
    assert rows(batch) == 8
    assert move(batch, torch.device("meta"))["more"][1]["z"].device.type == "meta"
    assert move(batch, torch.device("cpu"))["what"] == "text"


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


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match=re.escape("module 'cpmlho' has no attribute 'Tunr'; it has CPMLHO")):
        cpmlho.Tunr  # noqa: B018


# --- A learning rate for each hyperparameter. ---


@pytest.mark.parametrize("method", [cpmlho.DeltaSTN(), cpmlho.STN(hyper_learning_rate=0.02)])
def test_each_hyperparameter_has_its_learning_rate(method):
    """Against RMSprop written out here, on the gradients that the optimizer gets."""
    common = method.hyper_learning_rate
    space = {"decay": cpmlho.LogUniform(1e-6, 1e-1, 1e-3, learning_rate=0.05), "rate": RATE}
    run = tuner(module(rate="rate"), space=space, method=method)
    lam, square, rates = run.bilevel.lam.detach().clone(), torch.zeros(2), torch.tensor([0.05, common])
    gradients = []
    run.bilevel.hyper_optimizer.register_step_pre_hook(lambda *_: gradients.append(run.bilevel.lam.grad.clone()))
    for step in range(1, 31):
        run.step((X, Y))
        if step % 5 == 0:
            square = 0.99 * square + 0.01 * gradients[-1] ** 2
            mean = square / (1 - 0.99 ** (step // 5)) if method.bias_correction else square
            lam = lam - rates * gradients[-1] / (mean.sqrt() + 1e-8)
            torch.testing.assert_close(run.bilevel.lam.detach(), lam)
    assert len(gradients) == run.updates == 6


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_learning_rate_of_a_hyperparameter_is_above_zero(rate):
    with pytest.raises(ValueError, match="learning_rate must be above 0, got"):
        cpmlho.Uniform(0, 1, learning_rate=rate)
