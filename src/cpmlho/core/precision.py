"""bfloat16 that no machine is slow at.

A product of two bfloat16 numbers is exact in float32. So where the machine has no instructions for them, operands that
are rounded to bfloat16 but kept in float32, multiplied in float32, give what such instructions give up to the order of
summation, at about the time of float32.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

NATIVE = ("amx_bf16", "bf16")  # instruction sets: x86, ARM
# Values of a variable with which a user keeps oneDNN, which makes these products, from using all instructions.
DENIED = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")


def native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively and faster than float32.

    The bfloat16 of AVX-512 counts on AMD's processors alone: on Intel's without AMX it takes twice the time of float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if os.environ.get("ONEDNN_MAX_CPU_ISA") in DENIED:
        return False
    capabilities = torch.cpu.get_capabilities()
    names = NATIVE if str(capabilities.get("cpu_name", "")).startswith("Intel") else (*NATIVE, "avx512_bf16")
    return any(capabilities.get(name) for name in names)


def operand(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of `x` (float32) rounded to `dtype`, for products in it, or `x` itself where that is its own.

    The copy is of that dtype, or still of float32, where the device had better multiply it so.
    """
    rounded = x.to(dtype)
    return rounded.to(x.dtype) if dtype == torch.bfloat16 and not native_bfloat16(x.device) else rounded


def multiply(product: Callable[..., Tensor], a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`product(a, weight, bias)` in the dtype of `a`, whatever the dtype in which `operand` keeps weight and bias."""
    return product(a.to(weight.dtype), weight, bias).to(a.dtype)
