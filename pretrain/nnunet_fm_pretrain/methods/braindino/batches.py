"""Batches of multi-crop views: one item of the dataset is the whole batch of a rank at a step."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Int
from torch import Tensor
from torch.utils.data import Dataset

from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.data.sampling import SampleOrder
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine.loader import empty_for_batch
from nnunet_fm_pretrain.methods.braindino.block_masks import (
    block_mask,
    exact_block_mask,
    patches_to_hide,
)
from nnunet_fm_pretrain.methods.braindino.multicrop import ViewMaker, fuse
from nnunet_fm_pretrain.methods.braindino.recipe import BrainDinoRecipe, CropPair, FusionRecipe

_PAIR_STREAM, _SAMPLE_STREAM, _MASK_STREAM = 1, 2, 3  # keep the draws of steps and samples apart


@runtime_checkable
class ImageSource(Protocol):
    """Where the images come from that crops are cut from.

    Attributes:
        channels: of every image.
        slices: of each sequence; their channels follow one another.
    """

    channels: int
    slices: int

    def __len__(self) -> int:
        """Return the number of images."""

    def read(self, index: int, rng: np.random.Generator) -> Float[np.ndarray, "c h w"]:
        """Read image number `index`; what is random in it is drawn from `rng`."""


class SliceSource:
    """The slices of a store, of one channel, or of three that registered sequences are fused to.

    Args:
        store: the slices.
        fusion: how often and how slices are fused.
    """

    def __init__(self, store: SliceStore, fusion: FusionRecipe) -> None:
        self.store, self.fusion = store, fusion
        self.channels, self.slices = (3 if fusion.probability else 1), 1

    def __len__(self) -> int:
        return len(self.store)

    def read(self, index: int, rng: np.random.Generator) -> Float[np.ndarray, "c h w"]:
        """Read a slice; with fusion as three channels of its registered sequences."""
        record, place = self.store.locate(index)
        if not self.fusion.probability:
            return self.store.read_slice(record, place)[None]
        registered = self.store.registered(record)
        if len(registered) > 1 and rng.random() < self.fusion.probability:
            slices = np.stack([self.store.read_slice(r, place) for r in registered])
            return fuse(slices, self.fusion, rng)
        return self.store.read_slice(record, place)[None].repeat(3, axis=0)


class MultiCropBatch(NamedTuple):
    """Crops of `b` images and the masks of the global ones."""

    global_crops: Float16[Tensor, "2 b c g g"]
    local_crops: Float16[Tensor, "n b c l l"]
    masks: Bool[Tensor, "2 b th tw"]


class MultiCropBatches(Dataset[MultiCropBatch]):
    """Batches by step number; everything in one derives from (seed, sample number).

    Args:
        source: the images.
        recipe: of the run.
        patch: side of a patch in pixels.
        rank: of this process.
        ranks: number of processes.

    Raises:
        ValueError: crops that do not fit the patches, or a batch that the ranks cannot share.
    """

    def __init__(
        self,
        source: ImageSource,
        recipe: BrainDinoRecipe,
        patch: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.source, self.seed = source, recipe.seed
        self.masks, self.patch = recipe.objective.masks, patch
        self.order = SampleOrder(len(source), recipe.optimiser.batch_size, recipe.seed)
        self.order.samples(0, rank, ranks)  # refuses a batch that cannot be shared
        self.views = ViewMaker(recipe.views, patch, source.slices)
        for pair in recipe.views.pairs:
            if pair.global_size % patch or pair.local_size < patch:
                raise InputError(
                    f"crops of {pair.global_size} and {pair.local_size} px for patches of {patch}; "
                    "allowed: global sizes that are multiples of the patch, "
                    "and local sizes of at least one patch"
                )
        _check_neighbours(recipe, ranks)
        self.rank, self.ranks = rank, ranks
        self.steps = recipe.optimiser.steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> MultiCropBatch:
        pair = self.crop_pair(step)
        samples = self.order.samples(step, self.rank, self.ranks)
        first = step * self.order.batch_size  # of all ranks
        batch = self._empty(pair, len(samples))
        hidden = self._patches_to_hide(step, pair)
        for place, sample in enumerate(samples):
            rng = np.random.default_rng([self.seed, _SAMPLE_STREAM, sample])
            image = self.source.read(self.order.index_of(sample), rng)
            views = self.views(image, pair, rng)
            # copying into the batch also converts to float16, without a copy in between
            for view, crop in enumerate(views.global_crops):
                batch.global_crops[view, place] = torch.from_numpy(crop)
            for view, crop in enumerate(views.local_crops):
                batch.local_crops[view, place] = torch.from_numpy(crop)
            for view, mask in enumerate(batch.masks[:, place]):
                grid = (mask.shape[0], mask.shape[1])
                if hidden is None:
                    drawn = block_mask(self.masks, grid, rng)
                else:
                    drawn = exact_block_mask(grid, int(hidden[view, sample - first]), rng)
                mask.copy_(torch.from_numpy(drawn))
        return batch

    def crop_pair(self, step: int) -> CropPair:
        """Draw the crop sizes of a step."""
        return self.views.pair(np.random.default_rng([self.seed, _PAIR_STREAM, step]))

    def _patches_to_hide(self, step: int, pair: CropPair) -> Int[np.ndarray, "2 b"] | None:
        """Draw the hidden patches of every crop of a step, over all ranks; None: crop by crop."""
        if self.masks.draw == "crop":
            return None
        crops = 2 * self.order.batch_size
        patches = (pair.global_size // self.patch) ** 2
        rng = np.random.default_rng([self.seed, _MASK_STREAM, step])
        return patches_to_hide(self.masks, crops, patches, rng).reshape(2, -1)

    def _empty(self, pair: CropPair, slices: int) -> MultiCropBatch:
        channels = self.source.channels
        views = self.views.recipe.local_crops
        side = self.views.side(pair.global_size)
        local = self.views.side(pair.local_size)
        grid = pair.global_size // self.patch
        return MultiCropBatch(
            empty_for_batch((2, slices, channels, side, side), torch.float16),
            empty_for_batch((views, slices, channels, local, local), torch.float16),
            torch.empty(2, slices, grid, grid, dtype=torch.bool),
        )


def _check_neighbours(recipe: BrainDinoRecipe, ranks: int) -> None:
    """Raise ValueError if KoLeo finds no second slice where it looks for neighbours."""
    objective = recipe.objective
    alone = recipe.optimiser.batch_size // ranks < 2
    if alone and objective.koleo_weight and objective.koleo_neighbours == "rank":
        raise InputError(
            f"optimiser.batch_size {recipe.optimiser.batch_size} on {ranks} devices gives each one "
            "slice, and KoLeo looks for its neighbour on the same device; allowed: "
            f"optimiser.batch_size={2 * ranks} or more, or objective.koleo_weight=0"
        )
