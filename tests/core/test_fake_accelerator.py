"""Whole steps of every method on a device that is not the CPU, on any machine.

Nothing is computed: a fake tensor has a shape, a type and a device. Tensors of two devices in one operation fail, and
so does whatever makes the host wait for the device (`item`, `tolist`, `nonzero`, a boolean index, `if tensor`): on a
GPU, one such wait an iteration costs more than the iteration.
"""

import dataclasses

import pytest
import torch
from cpmlho.core.events import FRESH
from cpmlho.core.trials import FixedTraining, predictor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from cpmlho.core.streams import Streams
from cpmlho.study.data import load
from cpmlho.study.methods import METHODS
from cpmlho.study.problem import conditions_of, problem_of
from cpmlho.study.protocol import RunKey

DEVICE = "fakegpu"
CPU = torch.device("cpu")
DATASETS = ["mnist", "fashionmnist"]
ALTERNATIONS = ["stn", "delta_stn", "cpmlho", "cpmlho_uncentred"]  # the other variants take the same steps


class Unasked(_DummyBackendModule):
    """Of use where it is named, but no device that torch itself may choose, in other tests of this process."""

    def is_available(self):
        return False


# A backend whose tensors have no data. Torch must know it before autograd starts, hence before any test runs.
if torch._C._get_privateuse1_backend_name() != DEVICE:
    _setup_privateuseone_for_python_backend(DEVICE, Unasked())


@pytest.fixture(scope="module")
def device():
    """The device of that backend."""
    return torch.device(DEVICE)


@pytest.fixture
def fake(device, monkeypatch):
    """The mode in which all tensors are fake. What the backend cannot do is the CPU's: streams, and new tensors."""
    monkeypatch.setattr(Streams, "device", Streams.host)
    with FakeTensorMode() as mode:
        yield mode


def on(device, mode, content):
    """A dataclass with its tensors moved."""
    moved = {
        field.name: mode.from_tensor(value).to(device)
        for field in dataclasses.fields(content)
        if isinstance(value := getattr(content, field.name), torch.Tensor)
    }
    return dataclasses.replace(content, **moved)


@pytest.fixture
def build(small, device, fake):
    """The problem of a run of the smoke protocol, on the device, with its conditions and its method's options."""

    def make(dataset, method, dtype=torch.float32):
        with torch.utils._python_dispatch._disable_current_modes():
            spec = small.resolve(RunKey(dataset, method, 0))
            problem = problem_of(spec, load(spec.data, spec.data_dir), CPU)
        parts = {name: on(device, fake, getattr(problem, name)) for name in ("train", "valid", "test", "space")}
        return dataclasses.replace(problem, **parts), conditions_of(spec, dtype, 1), spec.settings

    return make


@pytest.fixture
def alternation(build, small, monkeypatch):
    """The state of a method with a response, before its first step, as the method itself makes it."""
    monkeypatch.setattr("cpmlho.core.schedule.alternate", lambda run, past: run)

    def make(dataset, method, dtype=torch.float32):
        problem, conditions, options = build(dataset, method, dtype)
        return METHODS[small.resolve(RunKey(dataset, method, 0)).algorithm].train(problem, conditions, options, FRESH)

    return make


def score(problem, predict):
    """All of an evaluation but the waiting for its outcome."""
    for part in (problem.valid, problem.test):
        outputs = predict(part.prepare(part.images[:100]))
        assert outputs.device.type == DEVICE
        problem.loss(outputs, part.labels[:100])


def go_round(run):
    """A whole cycle."""
    for _ in range(run.options.train_steps):
        run.iterate()
    run.update(tune=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dataset", DATASETS)
def test_the_trials_of_all_searches_train_without_waiting_for_the_device(build, dataset, dtype):
    problem, conditions, _ = build(dataset, "fixed", dtype)
    training = FixedTraining(problem, conditions, problem.space.start)
    for _ in range(2):
        training.step()
    score(problem, predictor(problem, training.general.masters))
    assert {each.device.type for layer in training.general.masters for each in layer} == {DEVICE}


@pytest.mark.parametrize(
    ("method", "dtype"), [*((method, torch.float32) for method in ALTERNATIONS), ("cpmlho", torch.bfloat16)]
)
@pytest.mark.parametrize("dataset", ["mnist", pytest.param("fashionmnist", marks=pytest.mark.slow)])
def test_whole_cycles_go_by_without_waiting_for_the_device(alternation, dataset, method, dtype):
    run = alternation(dataset, method, dtype)
    go_round(run)
    go_round(run)
    score(run.problem, run.predict)
    assert run.raw.device.type == DEVICE


@pytest.mark.parametrize("dataset", DATASETS)
def test_planes_are_taken_and_pull_without_waiting_for_the_device(alternation, dataset):
    run = alternation(dataset, "cpmlho")
    for _ in range(run.options.max_planes + 1):
        run.iterate()
        run.cut()
    go_round(run)


# That the mode would notice


def test_tensors_of_two_devices_do_not_meet(device, fake):
    with pytest.raises(RuntimeError, match=r"two devices|same device"):
        torch.zeros(3, device=device) + torch.zeros(3)


@pytest.mark.parametrize(
    ("wait", "error"),
    [
        (lambda x: x.sum().item(), DataDependentOutputException),
        (lambda x: x.tolist(), DataDependentOutputException),
        (lambda x: bool(x[0] > 0), DataDependentOutputException),
        (torch.Tensor.nonzero, DynamicOutputShapeException),
        (lambda x: x[x > 0], DynamicOutputShapeException),
    ],
)
def test_a_wait_for_the_device_is_an_error(device, fake, wait, error):
    with pytest.raises(error):
        wait(torch.zeros(3, device=device))
