"""Steps replayed as a CUDA graph, where there is none: a recorder in its place, which has a graph's way of going wrong.

What it records is each operation with the very tensors that it read and wrote. A replay does the same to the same
memory, whatever Python has come to since: a tensor that was replaced is read as it was, a number on the host is what it
was. So a step that leans on either ends at other bits than the step itself.
"""

import contextlib
import copy
import dataclasses

import pytest
import torch
from cpmlho.core.events import Past, Snapshot
from cpmlho.core.graphs import WARM_UP, Replayed
from cpmlho.core.steps import Trainable
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cpmlho.core import graphs, planes
from cpmlho.study.data import load
from cpmlho.study.methods import METHODS
from cpmlho.study.problem import conditions_of, problem_of
from cpmlho.study.protocol import RunKey


def tensors(content):
    return [each for each in tree_leaves(content) if isinstance(each, torch.Tensor)]


class Recorder(TorchDispatchMode):
    """Takes down what is computed under it, and leaves all memory that was there before as it was."""

    def __init__(self):
        super().__init__()
        self.operations, self._own, self._before, self._generators = [], set(), [], {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags:
            raise RuntimeError(f"{func} waits for the device")
        if (generator := kwargs.get("generator")) is not None:
            self._generators.setdefault(generator, generator.get_state())
        given = [*zip(func._schema.arguments, args, strict=False)]
        given += [(each, kwargs[each.name]) for each in func._schema.arguments if each.name in kwargs]
        for argument, value in given:
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._before += [(each, each.clone()) for each in tensors(value) if self._place(each) not in self._own]
        results = func(*args, **kwargs)
        if all(each.alias_info is None for each in func._schema.returns):
            self._own.update(map(self._place, tensors(results)))
        self.operations.append((func, args, kwargs, results))
        return results

    @staticmethod
    def _place(tensor):
        return tensor.untyped_storage().data_ptr()

    @torch.no_grad()
    def undo(self):
        for tensor, content in reversed(self._before):
            tensor.copy_(content)
        for generator, state in self._generators.items():
            generator.set_state(state)

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, results in self.operations:
            again = func(*args, **kwargs)
            if all(each.alias_info is None for each in func._schema.returns):  # else it lies there already
                for place, content in zip(tensors(results), tensors(again), strict=True):
                    place.copy_(content)


@pytest.fixture
def captured(monkeypatch):
    """The recorder in the graph's place; how often it recorded."""
    taken = []

    def capture(step, places):
        with Recorder() as recorder:
            step(*places)
        recorder.undo()
        taken.append(recorder)
        return recorder.replay

    monkeypatch.setattr(graphs, "capture", capture)
    return taken


METHOD_NAMES = ("fixed", "random_search", "stn", "delta_stn", "cpmlho", "cpmlho_uncentred")
CASES = [  # the methods as they are, and what changes Python's way through a step
    *(("mnist", name, {}) for name in METHOD_NAMES),
    ("mnist", "cpmlho", {"max_planes": 3, "cut_steps": 4}),
    ("mnist", "cpmlho", {"max_planes": 3, "multiplier": "adbo"}),
    ("mnist", "cpmlho", {"max_planes": 2, "multiplier": "dual_ascent", "cut_steps": 3, "force": "always"}),
    ("mnist", "cpmlho", {"per_layer": True, "constraint": "displaced"}),
    ("mnist", "cpmlho", {"upper_regularised": True, "g": "l1"}),
    ("mnist", "cpmlho", {"cutting_planes": False}),
    ("mnist", "cpmlho", {"mixed_level": False, "warm_up": 1}),
    ("mnist", "cpmlho_uncentred", {"response": "stn_joint"}),
    pytest.param("fashionmnist", "fixed", {}, marks=pytest.mark.slow),
    pytest.param("fashionmnist", "cpmlho", {}, marks=pytest.mark.slow),
]
PLANES = {"max_planes": 2, "multiplier": "adbo", "cut_steps": 3}  # cut while there are none, one and two of them


@pytest.fixture
def prepared(small):
    """A run's method, not begun: a function of what it has done before, and of whether steps are replayed."""

    def make(dataset, name, changes=None, momentum=0.0):
        spec = small.resolve(RunKey(dataset, name, 0))
        problem = problem_of(spec, load(spec.data, spec.data_dir), torch.device("cpu"))
        settings = dataclasses.replace(spec.settings, **(changes or {}))
        conditions = dataclasses.replace(conditions_of(spec, torch.float32), epochs=3)
        training = dataclasses.replace(conditions.training, momentum=momentum)

        def begin(replayed, past=None, workers=1):
            own = dataclasses.replace(conditions, training=training, graphs=replayed, workers=workers)
            return problem, METHODS[spec.algorithm].train(problem, own, settings, past or Past())

        return begin

    return make


def followed(problem, method):
    """All evaluations, with what each snapshot tells and remembers."""
    told, metrics = [], None
    with contextlib.suppress(StopIteration):
        while True:
            event = method.send(metrics)
            metrics = None
            if isinstance(event, Snapshot):
                metrics = problem.evaluate(event.predict)
                told.append((metrics, event.hyperparameters, event.updates, event.planes, frozen(event.state())))
    return told


def frozen(state):
    """What a checkpoint would hold of a state, to be compared."""
    return [each.tolist() for each in tensors(state)]


@pytest.mark.parametrize(("dataset", "name", "changes"), CASES)
def test_replayed_steps_come_to_the_bits_of_the_steps_themselves(prepared, captured, dataset, name, changes):
    begin = prepared(dataset, name, changes)
    expected = followed(*begin(replayed=False))
    assert not captured
    assert followed(*begin(replayed=True)) == expected
    assert captured


@pytest.mark.parametrize("name", ["fixed", "cpmlho"])
def test_so_they_do_with_momentum_where_all_parameters_step_at_once(prepared, captured, monkeypatch, name):
    made = Trainable.__init__

    def at_once(self, *args, **kwargs):
        made(self, *args, **kwargs)
        self.by_pieces = False

    monkeypatch.setattr(Trainable, "__init__", at_once)
    begin = prepared("mnist", name, momentum=0.9)
    assert followed(*begin(replayed=True)) == followed(*begin(replayed=False))


def test_trials_side_by_side_are_replayed_each_by_itself(prepared, captured):
    begin = prepared("mnist", "random_search")
    expected = followed(*begin(replayed=False))
    assert followed(*begin(replayed=True, workers=2)) == expected
    assert len(captured) == len(expected) == 2


@pytest.mark.parametrize("changes", [{}, PLANES])
def test_an_interrupted_run_goes_on_to_the_same_bits(prepared, captured, changes):
    begin = prepared("mnist", "cpmlho", changes)
    expected = followed(*begin(replayed=False))
    problem, method = begin(replayed=True)
    first = next(method)
    metrics, state = problem.evaluate(first.predict), copy.deepcopy(first.state())
    method.close()
    assert followed(*begin(replayed=True, past=Past([metrics], state))) == expected[1:]


# That the recorder would notice


def test_planes_that_do_not_keep_their_places_are_noticed(prepared, captured, monkeypatch):
    begin = prepared("mnist", "cpmlho", PLANES)
    expected = followed(*begin(replayed=False))
    assert followed(*begin(replayed=True)) == expected
    monkeypatch.setattr(planes, "in_place", lambda old, new: new)
    assert followed(*begin(replayed=True)) != expected


def test_another_number_of_planes_without_another_capture_is_noticed(prepared, captured, monkeypatch):
    begin = prepared("mnist", "cpmlho", PLANES)
    expected = followed(*begin(replayed=False))
    take = Replayed.__call__

    def in_one_case(self, *arguments, case=None):
        take(self, *arguments)

    monkeypatch.setattr(Replayed, "__call__", in_one_case)
    assert followed(*begin(replayed=True)) != expected


def steps(replayed):
    """Ten steps that add their input times a draw to a sum; the sum, and where the stream stands."""
    total, generator = torch.zeros(()), torch.Generator().manual_seed(0)

    def step(x):
        total.add_(x * torch.empty(()).normal_(generator=generator))

    for count in range(10):
        replayed(step, torch.tensor(float(count)))
    return total, generator.get_state()


def test_inputs_and_draws_go_on(captured):
    assert all(map(torch.equal, steps(Replayed(True)), steps(Replayed(False))))
    assert len(captured) == 1


@pytest.mark.parametrize(("case", "same"), [(lambda scale: scale, True), (lambda scale: None, False)])
def test_what_python_decides_is_decided_at_the_capture_and_anew_for_another_case(captured, case, same):
    take, total, expected = Replayed(True), torch.zeros(()), 0
    for scale in (1, 2):
        for _ in range(WARM_UP + 2):
            take(lambda x, scale=scale: total.add_(x * scale), torch.ones(()), case=case(scale))
            expected += scale
    assert (total.item() == expected) == same


def test_a_wait_for_the_device_is_an_error(captured):
    take = Replayed(True)
    for _ in range(WARM_UP):
        take(lambda x: x.item(), torch.ones(()))
    with pytest.raises(RuntimeError, match="waits"):
        take(lambda x: x.item(), torch.ones(()))
