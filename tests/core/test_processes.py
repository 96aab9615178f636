"""Two processes, each with half of every batch, against one process on the joint batch."""

import pytest
import torch
import torch.distributed as dist
from setups import METHODS, entropy
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import cpmlho

SPACE = {"decay": cpmlho.LogUniform(1e-5, 1, 1e-2), "smoothing": cpmlho.Uniform(0, 0.9, 0.2)}


def batch():
    """Sixteen examples: torch draws normal numbers in blocks of 16, here 8 rows."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, 5, generator=generator, dtype=torch.float64), torch.arange(16) % 3


def train_loss(net, batch, h):
    return cpmlho.cross_entropy(net(batch[0]), batch[1], label_smoothing=h.smoothing) + h.decay * net.l2()


def trained(method, own, rank=None):
    """Losses, history and end of 20 steps on batches `own`; in the process `rank` of two, or in one process."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    if rank:
        nn.init.zeros_(module[0].weight)  # DistributedDataParallel starts all processes at the first one's weights
    optimizer = torch.optim.SGD(module.parameters(), 0.2, momentum=0.5)
    wrapped = module if rank is None else DistributedDataParallel(module)
    run = cpmlho.Tuner(wrapped, SPACE, train_loss, entropy, optimizer, [own], method=METHODS[method], check=False)
    losses = [run.step(own).item() for _ in range(20)]
    end = [t.detach().clone() for t in (*module.state_dict().values(), *run.bilevel.layers.parameters)]
    return losses, run.history[1:], end


def process(rank, file, found):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    half = tuple(each[8 * rank : 8 * rank + 8] for each in batch())
    for method in METHODS:
        found[method, rank] = trained(method, half, rank)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    with multiprocessing.get_context("spawn").Manager() as manager:
        found = manager.dict()
        multiprocessing.spawn(process, (tmp_path_factory.mktemp("group") / "store", found), nprocs=2)
        yield dict(found)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_equal_one_on_the_joint_batch(method, found):
    (losses, history, first), (others, other, second) = found[method, 0], found[method, 1]
    expected, _, end = trained(method, batch())
    assert (losses, history) == (others, other)
    assert losses == pytest.approx(expected)
    torch.testing.assert_close(first, end)
    torch.testing.assert_close(first, second)
