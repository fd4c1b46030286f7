"""Data loading: one item of the dataset is the whole batch of a rank at a step."""

import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nnunet_fm.internal.processes import WorkerContext, end_with_parent, receive_signals
from nnunet_fm_pretrain.data.workers import one_thread

PREFETCHED = 2  # batches per worker


def make_loader(
    batches: Dataset[Any], first_step: int, last_step: int, workers: int, pin: bool
) -> DataLoader[Any]:
    """Load the batches of the steps from `first_step` up to, not including, `last_step`, in order.

    Args:
        batches: dataset of batches by step number.
        first_step: where the run starts or resumes.
        last_step: steps of the whole run.
        workers: processes; they change no batch.
        pin: copy batches to pinned memory, for GPUs.
    """
    return DataLoader(
        batches,
        sampler=range(first_step, last_step),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_start_worker if workers else None,
        pin_memory=pin,
        prefetch_factor=PREFETCHED if workers else None,
        # a fork server would die of a signal that is sent to the process group
        multiprocessing_context=WorkerContext() if workers else None,
    )


def end_workers(batches: Iterator[Any]) -> None:
    """End the workers of a loader; one that aborts while it ends has nothing left to do.

    Left to Python's exit, torch reports such a worker with a traceback.

    Args:
        batches: `iter` of a loader.
    """
    end = getattr(batches, "_shutdown_workers", None)  # only with workers
    if end is not None:
        with suppress(RuntimeError):
            end()


def empty_for_batch(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Allocate a tensor of a batch; in a worker in shared memory, to avoid a copy later."""
    size = math.prod(shape) * dtype.itemsize
    if torch.utils.data.get_worker_info() is None or not size:
        return torch.empty(tuple(shape), dtype=dtype)
    storage = torch.UntypedStorage._new_shared(size)
    return torch.empty(0, dtype=dtype).set_(storage).view(tuple(shape))


def _start_worker(_: int) -> None:
    # launchers signal the whole process group: the main process saves, then ends its workers
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    receive_signals()
    end_with_parent()
    one_thread()
