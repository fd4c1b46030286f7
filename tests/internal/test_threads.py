"""Threads of torch."""

import os

import pytest
import torch

from nnunet_fm.internal.threads import limit_threads_to_cores, torch_threads


@pytest.mark.parametrize(("cores", "expected"), [({3}, 1), ({0, 1, 2}, 2)])
def test_a_process_uses_no_more_threads_than_cores(
    cores: set[int], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    with torch_threads(2):
        limit_threads_to_cores()
        assert torch.get_num_threads() == expected
