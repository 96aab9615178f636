"""`make gpu-check` where there is no GPU: that its comparison can fail, and that its draws are the CPU's."""

import pytest
import torch
from benchmarks.gpu import CPU, TOLERANCES, difference, same_draws, train

from cpmlho.study.protocol import RunKey


def outputs(small, dtype, method="cpmlho", seed=0):
    with same_draws():
        return train(small.resolve(RunKey("mnist", method, seed)), CPU, dtype)[0]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_device_like_the_cpu_passes_and_another_training_does_not(small, dtype):
    expected = outputs(small, dtype)
    assert expected.dtype == dtype
    assert difference(outputs(small, dtype), expected) == 0
    assert difference(outputs(small, dtype, seed=1), expected) > TOLERANCES[dtype]
    assert difference(outputs(small, dtype, method="delta_stn"), expected) > TOLERANCES[dtype]


def test_a_generator_of_the_cpu_fills_another_device():
    generator = torch.Generator().manual_seed(0)
    with same_draws():
        drawn = torch.empty(3, device="meta").normal_(generator=generator)
        whole = torch.randint(5, (3,), generator=generator, device="meta")
        here = torch.randint(5, (3,), generator=generator)
    assert (drawn.device.type, whole.device.type, here.device.type) == ("meta", "meta", "cpu")
    again = torch.Generator().manual_seed(0)
    torch.empty(3).normal_(generator=again)
    torch.randint(5, (3,), generator=again)
    assert torch.equal(here, torch.randint(5, (3,), generator=again)), "the stream has not gone on as on the CPU"
