"""Precision, memory and allocator of a device."""

import ctypes
import functools
import os
import sys
from collections.abc import Sequence
from typing import Literal

import psutil
import torch

Precision = Literal["float32", "bfloat16", "float16"]

# glibc's mallopt parameters (malloc.h)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def default_device() -> str:
    """Return `cuda` if this machine has a GPU of that kind, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def missing_device(device: str, gpus: Sequence[int] = ()) -> str:
    """Say what this machine lacks to train on a device; empty if it can.

    Args:
        device: `cpu`, `cuda` or `mps`.
        gpus: numbers of the GPUs, as CUDA_VISIBLE_DEVICES has them.
    """
    if device == "mps" and not torch.backends.mps.is_available():
        return "no Apple GPU (mps)"
    if device != "cuda":
        return ""
    if not torch.cuda.is_available():
        return "no CUDA GPU"
    count = torch.cuda.device_count()
    absent = [str(gpu) for gpu in gpus if gpu >= count]
    if absent and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return f"no GPU {', '.join(absent)}; it has 0 to {count - 1}"
    return ""


def best_precision(device: torch.device) -> tuple[Precision, str]:
    """Return the fastest precision that the device has units for, and the reason."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16", "GPU with bfloat16 units"
    if device.type == "cpu":
        units = [
            name for name, probe in _CPU_UNITS.items() if getattr(torch.cpu, probe, lambda: False)()
        ]
        if units:
            return "bfloat16", f"CPU with {' and '.join(units)}"
    if device.type == "cuda":
        return "float16", "GPU without bfloat16 units"
    return "float32", "no bfloat16 units"


_CPU_UNITS = {"AMX": "_is_amx_tile_supported", "AVX512-BF16": "_is_avx512_bf16_supported"}


@functools.cache
def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks instead of returning them to the kernel.

    A training step on the CPU frees and allocates hundreds of megabytes; fetching them again costs
    a page fault per 4 KiB, more than the arithmetic of every element-wise operation. Peak memory
    stays the same.

    Returns:
        Whether the C library has the setting (glibc does).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def free_memory(device: torch.device) -> int | None:
    """Return the free bytes of the GPU or of the machine's memory; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return int(psutil.virtual_memory().available)
    except (OSError, NotImplementedError):
        return None


def peak_memory(device: torch.device) -> int:
    """Return the peak bytes of tensors on the GPU, or of this process; 0 if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
