"""Precision and memory of a device."""

import ctypes
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from nnunet_fm.internal.device import best_precision, free_memory, keep_freed_memory, peak_memory

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("amx", "avx", "expected"),
    [
        (True, True, ("bfloat16", "CPU with AMX and AVX512-BF16")),
        (False, True, ("bfloat16", "CPU with AVX512-BF16")),
        (False, False, ("float32", "no bfloat16 units")),
    ],
)
def test_the_precision_of_a_cpu_follows_its_units(
    amx: bool, avx: bool, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx, raising=False)
    assert best_precision(CPU) == expected


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (True, ("bfloat16", "GPU with bfloat16 units")),
        (False, ("float16", "GPU without bfloat16 units")),
    ],
)
def test_the_precision_of_a_gpu_follows_its_units(
    units: bool, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: units)
    assert best_precision(GPU) == expected


def test_other_devices_compute_in_float32() -> None:
    assert best_precision(torch.device("mps")) == ("float32", "no bfloat16 units")


def test_free_memory_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=12345))
    assert free_memory(CPU) == 12345
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (678, 900))
    assert free_memory(GPU) == 678

    def unreadable() -> Any:
        raise OSError("no /proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", unreadable)
    assert free_memory(CPU) is None


def test_peak_memory_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = psutil.Process().memory_info().rss
    assert 0.5 * resident < peak_memory(CPU) < 100 * resident  # bytes, not KiB
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 42)
    assert peak_memory(GPU) == 42


def test_a_c_library_without_the_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: object) -> Any:
        raise OSError("no C library")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert keep_freed_memory.__wrapped__() is False
