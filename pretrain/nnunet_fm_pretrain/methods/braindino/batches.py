"""Batches: one item of the dataset is the whole batch of a rank at a step."""

import math
import signal
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.data.sampling import SampleOrder
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.data.workers import one_thread
from nnunet_fm_pretrain.engine.recipe import CropPair, MaskRecipe, Recipe
from nnunet_fm_pretrain.methods.braindino.block_masks import block_mask
from nnunet_fm_pretrain.methods.braindino.multicrop import ViewMaker, fuse

_PAIR_STREAM, _SAMPLE_STREAM = 1, 2  # keep the draws of steps and of samples apart


class MultiCropBatch(NamedTuple):
    """Crops of `b` slices, of one channel or three, and the masks of the global ones."""

    global_crops: Float16[Tensor, "2 b c g g"]
    local_crops: Float16[Tensor, "n b c l l"]
    masks: Bool[Tensor, "2 b th tw"]


class MultiCropBatches(Dataset[MultiCropBatch]):
    """Batches by step number: everything in one derives from (seed, sample number).

    Args:
        store: the slices.
        recipe: of the run.
        masks: part of the objective's recipe.
        patch: side of a patch in pixels.
        rank: of this process.
        ranks: number of processes.
    """

    def __init__(
        self,
        store: SliceStore,
        recipe: Recipe,
        masks: MaskRecipe,
        patch: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.store, self.seed, self.masks, self.patch = store, recipe.seed, masks, patch
        self.order = SampleOrder(len(store), recipe.optimiser.batch_size, recipe.seed)
        self.order.samples(0, rank, ranks)  # refuses a batch that cannot be shared out
        self.views = ViewMaker(recipe.views, patch)
        for pair in recipe.views.pairs:
            if pair.global_size % patch or pair.local_size < patch:
                raise InputError(
                    f"crops of {pair.global_size} and {pair.local_size} px for patches of {patch}; "
                    "allowed: global sizes that are multiples of the patch, local ones not below it"
                )
        self.rank, self.ranks = rank, ranks
        self.steps = recipe.optimiser.steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> MultiCropBatch:
        pair = self.views.pair(np.random.default_rng([self.seed, _PAIR_STREAM, step]))
        samples = self.order.samples(step, self.rank, self.ranks)
        batch = self._empty(pair, len(samples))
        for place, sample in enumerate(samples):
            rng = np.random.default_rng([self.seed, _SAMPLE_STREAM, sample])
            views = self.views(self._image(sample, rng), pair, rng)
            for into, crops in (
                (batch.global_crops, views.global_crops),
                (batch.local_crops, views.local_crops),
            ):
                for view, crop in enumerate(crops):
                    into[view, place] = torch.from_numpy(
                        crop
                    )  # converts to half on the way, without a copy between
            for mask in batch.masks[:, place]:
                mask.copy_(
                    torch.from_numpy(block_mask(self.masks, (mask.shape[0], mask.shape[1]), rng))
                )
        return batch

    def _empty(self, pair: CropPair, slices: int) -> MultiCropBatch:
        channels = 3 if self.views.recipe.fusion.probability else 1
        g, n = self.views.side(pair.global_size), pair.global_size // self.patch
        local = self.views.side(pair.local_size)
        return MultiCropBatch(
            _empty((2, slices, channels, g, g), torch.float16),
            _empty((self.views.recipe.local_crops, slices, channels, local, local), torch.float16),
            torch.empty(2, slices, n, n, dtype=torch.bool),
        )

    def _image(self, sample: int, rng: np.random.Generator) -> Float[np.ndarray, "c h w"]:
        """The slice; with fusion, three channels of it and of the sequences that are registered to it."""
        record, place = self.store.where(self.order.slice_of(sample))
        fusion = self.views.recipe.fusion
        if not fusion.probability:
            return self.store.read_slice(record, place)[None]
        together = self.store.registered(record)
        if len(together) > 1 and rng.random() < fusion.probability:
            return fuse(np.stack([self.store.read_slice(r, place) for r in together]), fusion, rng)
        return self.store.read_slice(record, place)[None].repeat(3, axis=0)


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """In a worker in shared memory from the start, as torch's own collation does, so that nothing is copied later."""
    size = math.prod(shape) * dtype.itemsize
    if torch.utils.data.get_worker_info() is None or not size:
        return torch.empty(shape, dtype=dtype)
    return torch.empty(0, dtype=dtype).set_(torch.UntypedStorage._new_shared(size)).view(shape)


def loader(
    batches: Dataset[MultiCropBatch], first_step: int, last_step: int, workers: int, pin: bool
) -> DataLoader[MultiCropBatch]:
    """Batches of the steps from `first_step` up to, not including, `last_step`, in order, whatever the workers."""
    return DataLoader(
        batches,
        sampler=range(first_step, last_step),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_start_worker if workers else None,
        pin_memory=pin,
        prefetch_factor=2 if workers else None,
        multiprocessing_context="spawn"
        if workers
        else None,  # a fork server would die of a signal to the group
    )


def _start_worker(_: int) -> None:
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # sent to the whole group; the main process saves, then ends them
        signal.signal(number, signal.SIG_IGN)
    one_thread()
