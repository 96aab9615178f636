"""Accumulated batches, clipping, float16, and several processes: all against one process on the joint batch."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import cpmlho

SPACE = {"decay": cpmlho.LogUniform(1e-5, 1, 1e-2), "smoothing": cpmlho.Uniform(0, 0.9, 0.2)}
METHODS = {
    "delta_stn": cpmlho.DeltaSTN(train_steps=2),
    "stn": cpmlho.STN(train_steps=2),
    "joint": cpmlho.CPMLHO(response="stn_joint", cutting_planes=False, train_steps=2),
    "planes": cpmlho.CPMLHO(train_steps=2, cut_steps=4),
}


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, 5, generator=generator, dtype=torch.float64), torch.arange(16) % 3


def train_loss(net, batch, h):
    return cpmlho.cross_entropy(net(batch[0]), batch[1], label_smoothing=h.smoothing) + h.decay * net.l2()


def valid_loss(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1], reduction="none")


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def tuner(module, valid, method=METHODS["delta_stn"], **named):
    optimizer = torch.optim.SGD(module.parameters(), 0.2, momentum=0.5)
    return cpmlho.Tuner(module, SPACE, train_loss, valid_loss, optimizer, valid, method=method, **named)


def end(run):
    return [
        run.values,
        *(t.detach().clone() for t in (*run.module.state_dict().values(), *run.bilevel.layers.parameters)),
    ]


def same(one, two):
    assert one[0] == pytest.approx(two[0])
    torch.testing.assert_close(one[1:], two[1:])


def parts(batch, *sizes):
    return [*zip(*(each.split(sizes) for each in batch), strict=True)]


@pytest.mark.parametrize("method", METHODS)
def test_accumulated_batches_equal_their_joint_batch(method):
    """torch draws normal numbers in blocks of 16, here 8 rows: so even the perturbations are the same."""
    joint, accumulated = (tuner(network(), [data()], METHODS[method], train=[data()]) for _ in range(2))
    for _ in range(20):
        loss = joint.step(data())
        torch.testing.assert_close(accumulated.step(*parts(data(), 8, 8)), loss)
    assert accumulated.steps == 20
    same(end(accumulated), end(joint))


def test_gradients_of_weights_and_response_are_clipped():
    norms, run = {}, tuner(network(), [data()], max_norm=1e-3)
    for name in ("optimizer", "response_optimizer"):
        optimizer = getattr(run.bilevel, name)

        def note(optimizer, args, kwargs, name=name):
            held = [p.grad.norm() for group in optimizer.param_groups for p in group["params"]]
            norms[name] = torch.stack(held).norm().item()

        optimizer.register_step_pre_hook(note)
    run.step(data())
    assert norms == pytest.approx({"optimizer": 1e-3, "response_optimizer": 1e-3}, rel=1e-2)


def test_float16_scales_its_losses():
    half, whole = (tuner(network(torch.float32), [single()], autocast=cast) for cast in (torch.float16, None))
    for _ in range(40):
        half.step(single())
        whole.step(single())
    assert half.values == pytest.approx(whole.values, rel=0.05)
    assert half.values != whole.values
    state = half.state_dict()
    assert state["scaler"]["scale"] >= 65536
    other = tuner(network(torch.float32), [single()], autocast=torch.float16)
    other.load_state_dict(state)
    for run in (half, other):
        run.step(single())
    assert other.values == half.values
    with pytest.raises(ValueError, match=r"cutting planes do not work with autocast=torch.float16"):
        tuner(network(torch.float32), [single()], METHODS["planes"], autocast=torch.float16)


def single():
    x, y = data()
    return x.float(), y


def process(rank, file, method, found):
    """One of two processes, with its half of the training and of the validation batch."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    half = parts(data(), 8, 8)[rank]
    module = network()
    if rank:
        nn.init.zeros_(module[0].weight)  # DistributedDataParallel starts all processes at the first one's weights
    run = tuner(DistributedDataParallel(module), [half], METHODS[method])
    losses = [run.step(half).item() for _ in range(20)]
    found[rank] = (losses, run.history[1:], end(run))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["delta_stn", "planes"])
def test_two_processes_equal_one_on_the_joint_batch(method, tmp_path):
    with multiprocessing.get_context("spawn").Manager() as manager:
        found = manager.dict()
        multiprocessing.spawn(process, (tmp_path / "store", method, found), nprocs=2)
        first, second = found[0], found[1]
    one = tuner(network(), [data()], METHODS[method])
    losses = [one.step(data()).item() for _ in range(20)]
    assert first[:2] == second[:2]
    assert first[0] == pytest.approx(losses)
    same(first[2], end(one))
    same(first[2], second[2])


def test_another_tuner_on_a_copy_is_independent():
    run = tuner(network(), [data()])
    run.step(data())
    state = copy.deepcopy(run.state_dict())
    other = tuner(network(), [data()])
    other.load_state_dict(state)
    for each in (run, other):
        each.step(data())
    same(end(run), end(other))
