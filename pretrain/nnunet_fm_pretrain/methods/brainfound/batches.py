"""Batches of BrainFound: multi-crop views of slabs, and what each slab is contrasted with."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float16, Int64
from torch import Tensor

from nnunet_fm_pretrain.engine.loader import empty_for_batch
from nnunet_fm_pretrain.methods.braindino.batches import MultiCropBatch, MultiCropBatches
from nnunet_fm_pretrain.methods.braindino.recipe import CropPair
from nnunet_fm_pretrain.methods.brainfound.recipe import BrainFoundRecipe
from nnunet_fm_pretrain.methods.brainfound.slabs import SlabSource

_POSITIVE_STREAM = 4  # keeps its draws apart from those of `MultiCropBatches`


class SlabBatch(NamedTuple):
    """Multi-crop views of `b` slabs, and what the first global crops are contrasted with.

    `positives` is empty (p is 0) without a contrast. `subjects` tells different people apart.
    """

    views: MultiCropBatch
    positives: Float16[Tensor, "p b c g g"]
    subjects: Int64[Tensor, " b"]


class SlabBatches(MultiCropBatches):
    """Batches by step number; everything in one derives from (seed, sample number).

    Args:
        source: the slabs.
        recipe: of the run.
        patch: side of a patch in pixels.
        rank: of this process.
        ranks: number of processes.

    Raises:
        ValueError: as `MultiCropBatches`.
    """

    def __init__(
        self,
        source: SlabSource,
        recipe: BrainFoundRecipe,
        patch: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        super().__init__(source, recipe, patch, rank, ranks)
        self.slabs, self.objective = source, recipe.objective
        names = sorted({stack.subject for stack in source.stacks})
        self.numbers = {name: number for number, name in enumerate(names)}

    def __getitem__(self, step: int) -> SlabBatch:  # type: ignore[override]
        views = super().__getitem__(step)
        samples = self.order.samples(step, self.rank, self.ranks)
        stacks = [self.slabs.locate(self.order.index_of(sample))[0] for sample in samples]
        subjects = torch.tensor([self.numbers[stack.subject] for stack in stacks])
        shape = (int(self.objective.infonce_weight > 0), *views.global_crops.shape[1:])
        positives = empty_for_batch(shape, torch.float16)
        if len(positives):
            pair = self.crop_pair(step)
            for place, sample in enumerate(samples):
                positives[0, place] = torch.from_numpy(self._positive(sample, pair))
        return SlabBatch(views, positives, subjects)

    def _positive(self, sample: int, pair: CropPair) -> np.ndarray:
        """Return a global crop of the slab that a sample is contrasted with."""
        rng = np.random.default_rng([self.seed, _POSITIVE_STREAM, sample])
        stack, place = self.slabs.locate(self.order.index_of(sample))
        only = None
        if self.objective.infonce_positive == "adjacent":
            place = self.slabs.neighbour(stack, place, rng)
        else:
            only = int(rng.integers(len(stack.records)))
        return self.views.global_crop(self.slabs.read_slab(stack, place, only), pair, rng)
