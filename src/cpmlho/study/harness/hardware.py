"""The device of a run, and the precision of its matrix products and convolutions."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable
from typing import Literal

import torch

from cpmlho.study.settings import Device, Precision
from cpmlho.study.strict import ConfigError

NATIVE = ("amx_bf16", "bf16")  # instruction sets: x86, ARM
# Values of ONEDNN_MAX_CPU_ISA that keep oneDNN, which computes these products, from using those instructions.
DENIED = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_device(wanted: Device, say: Callable[[str], None]) -> torch.device:
    """Return the configured device; `auto` chooses a GPU if one works, else the CPU.

    Args:
        wanted: the setting.
        say: prints a line if `auto` cannot use a GPU that is there.

    Raises:
        ConfigError: a GPU is required, but none works.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    obstacle = "torch finds none"
    if torch.cuda.is_available():
        reproduce()
        try:
            torch.ones(1, device="cuda").add_(1).item()
            return torch.device("cuda")
        except RuntimeError as error:  # such as "no kernel image is available", on a GPU older than this torch
            obstacle = str(error).partition("\n")[0]
            if wanted == "auto":
                say(f"device: auto chooses the CPU, because the GPU does not work: {obstacle}")
    if wanted == "cuda":
        raise ConfigError(f"device: cuda is asked for, but no GPU works: {obstacle}; choose auto or cpu")
    return torch.device("cpu")


def reproduce() -> None:
    """Make repeated runs on a GPU bit-identical, in full float32; call this before the first operation.

    torch's deterministic mode stays off: it costs time, and it warns only about pooling. The pooling windows of our
    networks do not overlap, so no two threads add to the same number.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first product
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


def native_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 natively and faster than float32.

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
    """Return the configured precision; `auto` chooses bfloat16 if the device multiplies it natively."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if native_bfloat16(device) else "float32"


def device_name(device: torch.device) -> str:
    """Return the name under which a result records the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_memory(device: torch.device) -> int:
    """Return the peak number of bytes in use, on the GPU or in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if platform.system() == "Darwin" else 1024  # bytes on macOS, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
