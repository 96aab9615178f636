"""What a run computes on, and at which precision its training multiplies."""

from __future__ import annotations

import os
import platform
import re
import resource
from collections.abc import Callable, Sequence
from typing import Literal

import torch

from cpmlho.study.settings import Device, Precision
from cpmlho.study.strict import ConfigError

NATIVE = ("amx_bf16", "bf16")  # instruction sets: x86, ARM
# Values of a variable with which a user keeps oneDNN, which computes these products, from using all instructions.
DENIED = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_device(wanted: Device, say: Callable[[str], None]) -> torch.device:
    """The device that the configuration names; `auto` is a GPU where there is one that torch has kernels for.

    Args:
        wanted: as configured.
        say: takes a line of text: why `auto` passes over a GPU.

    Raises:
        ConfigError: a GPU is asked for where there is none to use.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        obstacle = "there is no GPU that torch can use"
    else:
        capability, kernels = torch.cuda.get_device_capability(), torch.cuda.get_arch_list()
        if has_kernels(capability, kernels):
            reproduce()
            return torch.device("cuda")
        name = torch.cuda.get_device_name()
        obstacle = f"this torch has no kernels for {name} (sm_{capability[0]}{capability[1]}), only {' '.join(kernels)}"
        if wanted == "auto":
            say(f"device: auto is the CPU, as {obstacle}")
    if wanted == "cuda":
        raise ConfigError(f"device: cuda is asked for, but {obstacle}; choose auto or cpu")
    return torch.device("cpu")


def has_kernels(capability: tuple[int, int], kernels: Sequence[str]) -> bool:
    """Whether a GPU of this compute capability runs one of the `kernels`, such as `sm_86` and `compute_90`.

    Machine code runs on later minor versions of the same major one, intermediate code on all later ones. A suffix, as
    in `sm_90a`, binds to the very version, or with `f` to its family.
    """
    for kind, major, minor, suffix in re.findall(r"\b(sm|compute)_(\d+)(\d)([af]?)\b", " ".join(kernels)):
        built = int(major), int(minor)
        later = built <= capability and (kind == "compute" or built[0] == capability[0])
        if built == capability if suffix == "a" else later and (not suffix or built[0] == capability[0]):
            return True
    return False


def reproduce() -> None:
    """Have a GPU give the same bits each time, and float32 mean float32; call it before anything is computed there.

    Of what torch's own deterministic mode refuses, the networks use pooling alone, whose windows do not overlap: no
    two threads add to one number. So the mode itself, which costs time and warns of these, is left off.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first product
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


def native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively and faster than float32.

    AVX-512's bfloat16 counts on AMD's processors only: on Intel's without AMX it takes twice the time of float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if os.environ.get("ONEDNN_MAX_CPU_ISA") in DENIED:
        return False
    capabilities = torch.cpu.get_capabilities()
    names = NATIVE if str(capabilities.get("cpu_name", "")).startswith("Intel") else (*NATIVE, "avx512_bf16")
    return any(capabilities.get(name) for name in names)


def choose_precision(wanted: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """The precision that the configuration names; `auto` is bfloat16 where the device multiplies it natively."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if native_bfloat16(device) else "float32"


def device_name(device: torch.device) -> str:
    """The name under which a result records the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_memory(device: torch.device) -> int:
    """Most bytes in use at once so far: of the GPU's memory, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if platform.system() == "Darwin" else 1024  # bytes on macOS, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
