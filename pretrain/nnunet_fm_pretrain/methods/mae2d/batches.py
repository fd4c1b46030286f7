"""Batches of the masked autoencoder: a crop of each slice, and the patches that are visible."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float16, Int64
from torch import Tensor
from torch.utils.data import Dataset

from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.data.crops import cut, foreground_box
from nnunet_fm_pretrain.data.sampling import SampleOrder
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine.loader import empty_for_batch
from nnunet_fm_pretrain.methods.mae2d.recipe import Mae2dRecipe

_STREAM = 1  # number of the random stream of samples


class Mae2dBatch(NamedTuple):
    """Crops of `b` slices, and the numbers of their visible patches, increasing."""

    crops: Float16[Tensor, "b 1 s s"]
    visible: Int64[Tensor, "b k"]


class Mae2dBatches(Dataset[Mae2dBatch]):
    """Batches by step number; everything in one derives from (seed, sample number).

    Args:
        store: the slices.
        recipe: of the run.
        patch: side of a patch in pixels.
        rank: of this process.
        ranks: number of processes.

    Raises:
        ValueError: a crop that is not a multiple of the patch, a mask that hides or shows all
            patches, or a batch that the ranks cannot share.
    """

    def __init__(
        self, store: SliceStore, recipe: Mae2dRecipe, patch: int, rank: int = 0, ranks: int = 1
    ) -> None:
        self.store, self.seed, self.views = store, recipe.seed, recipe.views
        self.order = SampleOrder(len(store), recipe.optimiser.batch_size, recipe.seed)
        self.order.samples(0, rank, ranks)  # refuses a batch that cannot be shared
        if self.views.size % patch:
            raise InputError(
                f"views.size {self.views.size} for patches of {patch} px; allowed: a multiple"
            )
        self.patches = (self.views.size // patch) ** 2
        self.kept = self.patches - round(recipe.objective.mask_ratio * self.patches)
        if not 0 < self.kept < self.patches:
            raise InputError(
                f"objective.mask_ratio {recipe.objective.mask_ratio} leaves {self.kept} of "
                f"{self.patches} patches visible; allowed: at least one visible and one hidden"
            )
        self.rank, self.ranks = rank, ranks
        self.steps = recipe.optimiser.steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Mae2dBatch:
        samples = self.order.samples(step, self.rank, self.ranks)
        side = self.views.size
        batch = Mae2dBatch(
            empty_for_batch((len(samples), 1, side, side), torch.float16),
            empty_for_batch((len(samples), self.kept), torch.int64),
        )
        for place, sample in enumerate(samples):
            rng = np.random.default_rng([self.seed, _STREAM, sample])
            pixels = self.store.read(self.order.index_of(sample))
            batch.crops[place, 0] = torch.from_numpy(self._crop(pixels, rng))
            visible = np.sort(rng.permutation(self.patches)[: self.kept])
            batch.visible[place] = torch.from_numpy(visible)
        return batch

    def _crop(
        self, pixels: Float[np.ndarray, "h w"], rng: np.random.Generator
    ) -> Float[np.ndarray, "s s"]:
        views = self.views
        box = foreground_box(pixels, views.scale, views.aspect, views.foreground, rng)
        region = cut(pixels, box)
        crop = cv2.resize(region, (views.size, views.size), interpolation=cv2.INTER_CUBIC)
        if rng.random() < views.flip:
            crop = cv2.flip(crop, 1)
        return crop
