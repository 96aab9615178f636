"""What a run computes on: the choice, what is said of it, and what a GPU is told beforehand."""

import os
from types import SimpleNamespace

import pytest
import torch

from cpmlho.study.harness import hardware
from cpmlho.study.harness.hardware import choose_device, has_kernels, peak_memory, reproduce
from cpmlho.study.protocol import ConfigError

WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "kernels", "expected"),
    [
        ((6, 1), WHEEL, False),  # the paper's own card
        ((7, 0), WHEEL, False),
        ((7, 5), WHEEL, True),
        ((8, 9), WHEEL, True),  # machine code of 8.6
        ((10, 3), WHEEL, True),
        ((12, 1), WHEEL, True),
        ((13, 0), WHEEL, True),  # intermediate code of 12.0
        ((11, 0), WHEEL, False),
        ((8, 0), ["sm_86"], False),  # machine code of a later minor version
        ((9, 0), ["sm_90a"], True),
        ((9, 1), ["sm_90a"], False),
        ((10, 3), ["compute_100f"], True),
        ((12, 0), ["compute_100f"], False),
        ((9, 0), [], False),
    ],
)
def test_kernels_are_compared_with_the_capability(capability, kernels, expected):
    assert has_kernels(capability, kernels) == expected


@pytest.mark.parametrize(("system", "counted"), [("Linux", 3), ("Darwin", 3072)])
def test_the_peak_of_memory_is_in_bytes_in_whatever_unit_the_system_counts(monkeypatch, system, counted):
    monkeypatch.setattr(hardware.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=counted))
    monkeypatch.setattr(hardware.platform, "system", lambda: system)
    assert peak_memory(torch.device("cpu")) == 3072


@pytest.fixture
def card(monkeypatch):
    """A machine that says it has a GPU of a given capability."""

    def pretend(capability):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA TITAN Xp")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: WHEEL)
        monkeypatch.setattr("cpmlho.study.harness.hardware.reproduce", lambda: None)

    return pretend


@pytest.mark.parametrize(
    ("wanted", "capability", "expected", "said"),
    [
        ("auto", (9, 0), "cuda", ""),
        ("cuda", (9, 0), "cuda", ""),
        ("cpu", (9, 0), "cpu", ""),
        ("auto", None, "cpu", ""),
        ("auto", (6, 1), "cpu", "device: auto is the CPU, as this torch has no kernels for NVIDIA TITAN Xp (sm_61), "),
    ],
)
def test_auto_is_a_gpu_that_torch_has_kernels_for(card, wanted, capability, expected, said):
    card(capability)
    lines = []
    assert choose_device(wanted, lines.append).type == expected
    assert len(lines) == bool(said)
    assert not said or lines[0].startswith(said)


@pytest.mark.parametrize(
    ("capability", "reason"), [(None, "there is no GPU that torch can use"), ((6, 1), r"no kernels for .* \(sm_61\)")]
)
def test_a_gpu_that_is_asked_for_and_of_no_use_is_an_error(card, capability, reason):
    card(capability)
    with pytest.raises(ConfigError, match=rf"device: cuda is asked for, but .*{reason}.*; choose auto or cpu"):
        choose_device("cuda", pytest.fail)


def test_a_gpu_is_told_to_repeat_itself_and_not_to_round(monkeypatch):
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
