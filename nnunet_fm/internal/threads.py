"""Threads of torch."""

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
