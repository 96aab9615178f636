"""Whole steps of every method on a device that is not the CPU, on any machine.

Nothing is computed: a fake tensor has a shape, a type and a device. Tensors of two devices in one operation fail, and
so does whatever makes the host wait for the device (`item`, `tolist`, `nonzero`, a boolean index, `if tensor`): on a
GPU, one such wait an iteration costs more than the iteration.
"""

import dataclasses

import pytest
import torch
from setups import METHODS
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from cpmlho.core.options import Search
from cpmlho.core.streams import Streams
from cpmlho.core.tuner import Tuner
from cpmlho.study.data import load
from cpmlho.study.problem import budget_of, predictor, problem_of
from cpmlho.study.protocol import RunKey
from cpmlho.study.trials import FixedTraining, start_point, values_at

DEVICE = "fakegpu"
CPU = torch.device("cpu")
DATASETS = ["mnist", "fashionmnist"]


class Unasked(_DummyBackendModule):
    """Of use where it is named, but no device that torch itself may choose, in other tests of this process."""

    def is_available(self):
        return False

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]


# A backend whose tensors have no data. Torch must know it before autograd starts, hence before any test runs.
if torch._C._get_privateuse1_backend_name() != DEVICE:
    _setup_privateuseone_for_python_backend(DEVICE, Unasked())


@pytest.fixture(scope="module")
def device():
    """The device of that backend."""
    return torch.device(DEVICE)


def to(module, device):
    """`Module.to` for fake tensors, whose parameters cannot be swapped in place."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            setattr(part, name, torch.nn.Parameter(parameter.detach().to(device)))
    return module


@pytest.fixture
def fake(device, monkeypatch):
    """The mode in which all tensors are fake. The backend has no generators; the CPU's take their place."""
    monkeypatch.setattr(Streams, "device", Streams.host)
    monkeypatch.setattr(torch.nn.Module, "to", to)
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
    """The problem of a run of the smoke protocol, on the device, with its budget."""

    def make(dataset):
        with torch.utils._python_dispatch._disable_current_modes():
            spec = small.resolve(RunKey(dataset, "cpmlho", 0))
            problem = problem_of(spec, load(spec.data, spec.data_dir), CPU)
        parts = {name: on(device, fake, getattr(problem, name)) for name in ("train", "valid", "test")}
        return dataclasses.replace(problem, **parts), budget_of(spec, torch.float32)

    return make


def score(problem, predict):
    """All of an evaluation but the wait for its result."""
    for part in (problem.valid, problem.test):
        assert predict(part.prepare(part.images[:100])).device.type == DEVICE


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_trials_of_all_searches_train_without_waiting_for_the_device(build, dataset):
    problem, budget = build(dataset)
    training = FixedTraining(problem, budget, values_at(problem, start_point(problem, Search())))
    for _ in range(2):
        training.step()
    score(problem, predictor(training.module))
    assert {p.device.type for p in training.module.parameters()} == {DEVICE}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dataset", ["mnist", pytest.param("fashionmnist", marks=pytest.mark.slow)])
def test_whole_cycles_go_by_without_waiting_for_the_device(build, dataset, method):
    problem, budget = build(dataset)
    module = problem.module(torch.Generator())
    batches = [budget.batches(part, torch.Generator()) for part in (problem.train, problem.valid, problem.train)]
    tuner = Tuner(
        module,
        problem.space,
        problem.train_loss,
        problem.valid_loss,
        budget.optimizer(module),
        batches[1],
        method=METHODS[method],
        train=batches[2],
        check=False,
    )
    for _ in range(11):  # two cycles and a step
        tuner.step(next(batches[0]))
    score(problem, predictor(module, tuner.net))
    assert {t.device.type for t in (tuner.bilevel.lam, *tuner.bilevel.layers.parameters)} == {DEVICE}
    if tuner.bilevel.planes:
        assert len(tuner.bilevel.planes)


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
