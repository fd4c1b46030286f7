"""Batches of crops of volumes: one item of the dataset is the whole batch of a rank at a step."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float16
from torch import Tensor
from torch.utils.data import Dataset

from nnunet_fm.encoders.contract import ZERO_TO_ONE
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some
from nnunet_fm_pretrain.data.sampling import SampleOrder
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.engine.loader import empty_for_batch
from nnunet_fm_pretrain.methods.volta3d.recipe import Volta3dRecipe, VolumeViews
from nnunet_fm_pretrain.methods.volta3d.views import VolumeViewMaker

_STREAM = 1  # number of the random stream of samples


class Volta3dBatch(NamedTuple):
    """Crops of `b` volumes.

    Attributes:
        teacher: two global crops of each volume with mild changes.
        student: the same crops with stronger ones, which are reconstructed.
        corrupted: the same with patches replaced.
        hidden: the patches that are replaced.
        local: local crops.
    """

    teacher: Float16[Tensor, "2 b 1 g g g"]
    student: Float16[Tensor, "2 b 1 g g g"]
    corrupted: Float16[Tensor, "2 b 1 g g g"]
    hidden: Bool[Tensor, "2 b t t t"]
    local: Float16[Tensor, "n b 1 l l l"]


class Volta3dBatches(Dataset[Volta3dBatch]):
    """Batches by step number; everything in one derives from (seed, sample number).

    Args:
        store: volumes with intensities from 0 to 1.
        recipe: of the run.
        patch: edge of a patch in voxels.
        rank: of this process.
        ranks: number of processes.

    Raises:
        ValueError: z-scores, volumes smaller than a global crop, crops that are not multiples of
            the patch, or a batch that the ranks cannot share.
    """

    def __init__(
        self, store: VolumeStore, recipe: Volta3dRecipe, patch: int, rank: int = 0, ranks: int = 1
    ) -> None:
        views = recipe.views
        check_crops(views, patch)
        check_volumes(store, views)
        self.store, self.seed, self.recipe = store, recipe.seed, recipe
        self.order = SampleOrder(len(store), recipe.optimiser.batch_size, recipe.seed, "volumes")
        share = len(self.order.samples(0, rank, ranks))  # refuses a batch that cannot be shared
        at_a_time = recipe.run.micro_batch or share
        if share % at_a_time:
            raise InputError(
                f"run.micro_batch {at_a_time} of {share} volumes per device; allowed: a divisor"
            )
        if recipe.objective.koleo_weight and at_a_time < 2:
            raise InputError(
                "objective.koleo_weight needs two volumes at a time on each device, and there is "
                "one; allowed: a larger optimiser.batch_size or run.micro_batch, or "
                "objective.koleo_weight=0"
            )
        self.views, self.patch = VolumeViewMaker(views, patch), patch
        self.rank, self.ranks = rank, ranks

    def __len__(self) -> int:
        return self.recipe.optimiser.steps

    def __getitem__(self, step: int) -> Volta3dBatch:
        samples = self.order.samples(step, self.rank, self.ranks)
        batch = self._empty(len(samples))
        for place, sample in enumerate(samples):
            rng = np.random.default_rng([self.seed, _STREAM, sample])
            record = self.store.records[self.order.index_of(sample)]
            # the crops together are larger than the volume
            volume = self.store.read_volume(record)
            for number in range(2):
                view = self.views.global_view(volume, record.spacing, rng)
                for name in ("teacher", "student", "corrupted"):
                    crop = np.ascontiguousarray(getattr(view, name))
                    getattr(batch, name)[number, place, 0] = torch.from_numpy(crop)
                batch.hidden[number, place] = torch.from_numpy(view.hidden)
            for local in batch.local[:, place, 0]:
                crop = self.views.local_view(volume, record.spacing, rng)
                local.copy_(torch.from_numpy(np.ascontiguousarray(crop)))
        return batch

    def _empty(self, volumes: int) -> Volta3dBatch:
        views = self.recipe.views
        crops = (2, volumes, 1, *(views.global_size,) * 3)
        local = (views.local_crops, volumes, 1, *(views.local_size,) * 3)
        teacher, student, corrupted = (empty_for_batch(crops, torch.float16) for _ in range(3))
        hidden = torch.empty(2, volumes, *(views.global_size // self.patch,) * 3, dtype=torch.bool)
        return Volta3dBatch(
            teacher, student, corrupted, hidden, empty_for_batch(local, torch.float16)
        )


def check_crops(views: VolumeViews, patch: int) -> None:
    """Raise ValueError for crops that are not made of whole patches."""
    for name in ("global_size", "local_size"):
        side = getattr(views, name)
        if side % patch:
            raise InputError(
                f"views.{name} {side} for patches of {patch} voxels; allowed: a multiple"
            )
    patches = (views.global_size // patch) ** 3
    share = views.corruption.share
    if not 0 < round(share * patches) < patches:
        raise InputError(
            f"views.corruption.share {share} of the {patches} patches of a global crop replaces "
            "none or all of them; allowed: a share that leaves some of both"
        )


def check_volumes(store: VolumeStore, views: VolumeViews) -> None:
    """Raise ValueError for volumes of other intensities, or smaller than a global crop."""
    scored = [r.volume for r in store.records if r.intensity != ZERO_TO_ONE]
    if scored:
        raise InputError(
            f"{store.folder} holds z-scores ({some(scored)}); VolTA-3D takes intensities from 0 to "
            "1, for which its reconstruction is weighted. Type: nnunet-fm pretrain prepare DATA "
            "--volumes --zero-to-one -o STORE"
        )
    small = [
        f"{r.volume} ({' x '.join(map(str, r.shape))})"
        for r in store.records
        if min(r.shape) < views.global_size
    ]
    if small:
        raise InputError(
            f"volumes of {store.folder} are smaller than views.global_size {views.global_size}: "
            f"{some(small)}. Prepare them with --shape or a smaller --spacing, or lower "
            "views.global_size"
        )
