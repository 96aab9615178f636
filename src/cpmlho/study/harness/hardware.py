"""What a run computes on, and at which precision its training multiplies."""

from __future__ import annotations

import resource
from typing import Literal

import torch

from cpmlho.study.protocol import ConfigError
from cpmlho.study.settings import Device, Precision

NATIVE_BFLOAT16 = ("amx_bf16", "bf16")  # instruction sets: x86, ARM
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_device(wanted: Device) -> torch.device:
    """The device that the configuration names; `auto` is a GPU where there is one.

    Raises:
        ConfigError: a GPU is asked for where there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda is asked for, but there is no GPU that torch can use; choose auto or cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def choose_precision(wanted: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """The precision that the configuration names; `auto` is bfloat16 where the device multiplies it natively.

    The bfloat16 of AVX-512 counts on AMD's processors alone: on Intel's without AMX it takes twice the time of float32.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = any(capabilities.get(name, False) for name in NATIVE_BFLOAT16) or (
            capabilities.get("avx512_bf16", False) and not capabilities.get("cpu_name", "").startswith("Intel")
        )
    return "bfloat16" if native else "float32"


def device_name(device: torch.device) -> str:
    """The name under which a result records the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_memory(device: torch.device) -> int:
    """Most bytes in use at once so far: of the GPU's memory, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
