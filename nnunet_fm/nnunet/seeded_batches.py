"""Batches that depend on their number alone, whatever the number of processes."""

from collections.abc import Iterator
from typing import Any

from batchgenerators.dataloading.data_loader import SlimDataLoaderBase
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform

from nnunet_fm.internal.threads import torch_threads
from nnunet_fm.nnunet.training_seed import Draw, TrainingSeed

ORDER = "channel_idx"  # of transforms that shuffle it in place, and so depend on former batches


class SeededBatches:
    """Batches `first`, `first + 1`, ... of a training, each drawn from seeds of its own.

    Of several processes, number i makes the batches i, i + processes, ... from `first` on.
    batchgenerators' `MultiThreadedAugmenter` takes one from each in turn, so the order is that of
    a single process.

    Args:
        loader: nnU-Net's loader, with `transforms`, which are changed.
        seed: of the training.
        draw: training or validation batches.
        first: number of the first batch, counted over the whole training.
        processes: number of processes that share the work.
    """

    def __init__(
        self, loader: SlimDataLoaderBase, seed: TrainingSeed, draw: Draw, first: int, processes: int
    ) -> None:
        self.loader = loader
        self.seed = seed
        self.draw = draw
        self.number = first
        self.processes = processes
        self.orders: list[tuple[BasicTransform, list[Any]]] = []
        for transform in _all_transforms(loader.transforms):
            if isinstance(transform, GaussianBlurTransform):
                transform.benchmark = False  # it would choose an algorithm by its speed
            if hasattr(transform, ORDER):
                self.orders.append((transform, list(getattr(transform, ORDER))))

    def set_thread_id(self, process: int) -> None:
        """Take over the part of a process; called in that process before its first batch."""
        self.loader.set_thread_id(process)
        self.number += process

    def __iter__(self) -> "SeededBatches":
        return self

    def __next__(self) -> dict[str, Any]:
        for transform, order in self.orders:
            setattr(transform, ORDER, list(order))
        # one thread here as in a process of its own, for the same sums
        with torch_threads(1), self.seed.seeded(self.draw, self.number):
            batch: dict[str, Any] = next(self.loader)
        self.number += self.processes
        return batch


def start_batches(
    loader: SlimDataLoaderBase,
    seed: TrainingSeed,
    draw: Draw,
    first: int,
    processes: int,
    pin_memory: bool = False,
) -> SingleThreadedAugmenter | MultiThreadedAugmenter:
    """Start to make batches in their order.

    Args:
        loader: nnU-Net's loader.
        seed: of the training.
        draw: training or validation batches.
        first: number of the first batch, counted over the whole training.
        processes: number of processes; 0 makes each batch in this process when it is needed.
        pin_memory: pin the batches for a GPU.
    """
    batches = SeededBatches(loader, seed, draw, first, max(1, processes))
    if processes == 0:
        return SingleThreadedAugmenter(batches, None)
    augmenter = MultiThreadedAugmenter(
        batches, None, processes, num_cached_per_queue=1, pin_memory=pin_memory
    )
    augmenter.restart()  # its processes start before the GPU and the threads are busy
    return augmenter


def _all_transforms(transform: BasicTransform | None) -> Iterator[BasicTransform]:
    """Yield a transform and those inside it."""
    if transform is None:
        return
    yield transform
    for value in vars(transform).values():
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, BasicTransform):
                yield from _all_transforms(part)
