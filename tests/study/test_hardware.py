"""The device of a run: which one is chosen, the messages, and the settings that make a GPU deterministic."""

import os
from types import SimpleNamespace

import pytest
import torch

from cpmlho.study.harness import hardware
from cpmlho.study.harness.hardware import choose_device, peak_memory, reproduce
from cpmlho.study.protocol import ConfigError


@pytest.mark.parametrize(("system", "counted"), [("Linux", 3), ("Darwin", 3072)])
def test_the_peak_of_memory_is_in_bytes_in_whatever_unit_the_system_counts(monkeypatch, system, counted):
    monkeypatch.setattr(hardware.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=counted))
    monkeypatch.setattr(hardware.platform, "system", lambda: system)
    assert peak_memory(torch.device("cpu")) == 3072


@pytest.fixture
def gpu(monkeypatch):
    """Simulate a machine with a working GPU (True), a GPU too old for this torch (False), or no GPU (None)."""
    ones = torch.ones

    def on_gpu(*size, device):
        assert device == "cuda"
        if not works:
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nSearch for")
        return ones(*size)

    def pretend(state):
        nonlocal works
        works = state
        monkeypatch.setattr(torch.cuda, "is_available", lambda: state is not None)
        monkeypatch.setattr(torch, "ones", on_gpu)
        monkeypatch.setattr(hardware, "reproduce", lambda: None)

    works = None
    return pretend


@pytest.mark.parametrize(
    ("wanted", "works", "expected", "said"),
    [
        ("auto", True, "cuda", []),
        ("cuda", True, "cuda", []),
        ("cpu", True, "cpu", []),
        ("auto", None, "cpu", []),
        ("auto", False, "cpu", ["no kernel image is available for execution on the device"]),
    ],
)
def test_auto_is_a_gpu_that_works(gpu, wanted, works, expected, said):
    gpu(works)
    lines = []
    assert choose_device(wanted, lines.append).type == expected
    assert [line.rpartition(": CUDA error: ")[2] for line in lines] == said


@pytest.mark.parametrize(("works", "reason"), [(None, "torch finds none"), (False, "no kernel image is available")])
def test_a_gpu_that_is_asked_for_and_does_not_work_is_an_error(gpu, works, reason):
    gpu(works)
    with pytest.raises(ConfigError, match=rf"^device: cuda is asked for, .*{reason}.*; choose auto or cpu$"):
        choose_device("cuda", pytest.fail)


def test_a_gpu_is_made_to_repeat_itself_and_not_to_round(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, torch.get_float32_matmul_precision()
    try:
        reproduce()
        assert (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) == (True, False, False)
        assert not torch.backends.cuda.matmul.allow_tf32
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before[:3]
        torch.set_float32_matmul_precision(before[3])
