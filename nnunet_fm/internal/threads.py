"""Threads of torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Use so many threads for torch's arithmetic on the CPU, whatever OMP_NUM_THREADS says.

    Another number sums in another order: results differ by rounding.

    Args:
        number: at least 1.
    """
    former = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(former)


def limit_threads_to_cores() -> None:
    """Use no more threads for torch's arithmetic than the process may use cores.

    `nnUNetv2_train -device cpu` starts a thread for each core of the machine. In a process that may
    use fewer (taskset, SLURM, a cpuset), each operation waits for threads that share a core.
    """
    if hasattr(os, "sched_getaffinity"):  # macOS pins no process
        cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(min(torch.get_num_threads(), cores))
