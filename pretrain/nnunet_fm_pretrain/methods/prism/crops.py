"""Crops of scans in random orientations; and their masked copies, with TR, TE, flip angle, region.

One item of the dataset is the whole batch of a rank at a step.
"""

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32, Int64
from torch import Tensor
from torch.utils.data import Dataset

from nnunet_fm.data.preprocessing import centre_fit
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some
from nnunet_fm_pretrain.data.acquisition import PARAMETERS
from nnunet_fm_pretrain.data.records import VolumeRecord
from nnunet_fm_pretrain.data.sampling import SampleOrder
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.engine.loader import empty_for_batch
from nnunet_fm_pretrain.methods.prism.masking import mask_blocks
from nnunet_fm_pretrain.methods.prism.recipe import CropRecipe, PrismRecipe

UNKNOWN = -1  # number of a region that is not known
_CROPS, _MASKS = 1, 2  # numbers of the random streams of samples


class AcquiredVolumes(VolumeStore):
    """A volume store whose identity holds what the method learns from: TR, TE, flip angle, region.

    Preparing a store again may change these without changing a volume.
    """

    def identity(self) -> str:
        """Return the SHA-256 of the volumes and of how they were acquired."""
        lines = [f"{record.volume} {record.acquisition!r}" for record in self.records]
        return hashlib.sha256("\n".join([super().identity(), *lines]).encode()).hexdigest()


class CropBatch(NamedTuple):
    """Crops of `b` scans.

    Attributes:
        clean: z-scores.
        masked: the same with blocks replaced.
        hidden: which voxels were replaced.
        acquisition: logarithms of TR (ms), TE (ms) and flip angle (degrees); NaN is unknown.
        regions: numbers of the body regions; -1 is unknown.
        subjects: numbers of the people.
        styles: random vectors of the P-space, one for each of the `p` phases.
    """

    clean: Float16[Tensor, "b 1 s s s"]
    masked: Float16[Tensor, "b 1 s s s"]
    hidden: Bool[Tensor, "b 1 s s s"]
    acquisition: Float32[Tensor, "b 3"]
    regions: Int64[Tensor, " b"]
    subjects: Int64[Tensor, " b"]
    styles: Float32[Tensor, "p b w"]


class CropBatches(Dataset[CropBatch]):
    """Batches by step number; everything in one derives from (seed, sample number).

    Args:
        store: volumes as z-scores.
        recipe: of the run.
        width: numbers of a style.
        phases: styles of each sample.
        rank: of this process.
        ranks: number of processes.

    Raises:
        ValueError: intensities from 0 to 1, a region that no volume has, or a batch that the ranks
            cannot share.
    """

    def __init__(
        self,
        store: VolumeStore,
        recipe: PrismRecipe,
        width: int,
        phases: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        check_store(store, recipe)
        self.store, self.recipe = store, recipe
        self.order = SampleOrder(len(store), recipe.optimiser.batch_size, recipe.seed, "volumes")
        self.order.samples(0, rank, ranks)  # refuses a batch that cannot be shared
        self.rank, self.ranks = rank, ranks
        self.width, self.phases = width, phases
        people = sorted({(r.dataset, r.subject) for r in store.records})
        self.person = {person: number for number, person in enumerate(people)}

    def __len__(self) -> int:
        return self.recipe.optimiser.steps

    def __getitem__(self, step: int) -> CropBatch:
        samples = self.order.samples(step, self.rank, self.ranks)
        everybody = self.order.samples(step)
        batch = self._empty(len(samples))
        crops = {sample: self._crop(sample) for sample in samples}
        for place, sample in enumerate(samples):
            next_one = everybody[(sample - everybody.start + 1) % len(everybody)]
            other = crops[next_one] if next_one in crops else self._crop(next_one)
            rng = np.random.default_rng([self.recipe.seed, _MASKS, sample])
            masked = mask_blocks(crops[sample], other, self.recipe.views.masking, rng)
            record = self.store.records[self.order.index_of(sample)]
            batch.clean[place, 0] = torch.from_numpy(crops[sample])
            batch.masked[place, 0] = torch.from_numpy(masked.voxels)
            batch.hidden[place, 0] = torch.from_numpy(masked.hidden)
            batch.acquisition[place] = torch.from_numpy(log_acquisition(record))
            batch.regions[place] = self._region(record)
            batch.subjects[place] = self.person[record.dataset, record.subject]
            styles = rng.standard_normal((self.phases, self.width), dtype=np.float32)
            batch.styles[:, place] = torch.from_numpy(styles)
        return batch

    def _crop(self, sample: int) -> Float[np.ndarray, "s s s"]:
        rng = np.random.default_rng([self.recipe.seed, _CROPS, sample])
        record = self.store.records[self.order.index_of(sample)]
        return random_crop(self.store, record, self.recipe.views, rng)

    def _region(self, record: VolumeRecord) -> int:
        regions, region = self.recipe.objective.regions, record.acquisition.region
        return regions.index(region) if region in regions else UNKNOWN

    def _empty(self, scans: int) -> CropBatch:
        crops = (scans, 1, *(self.recipe.views.size,) * 3)
        return CropBatch(
            empty_for_batch(crops, torch.float16),
            empty_for_batch(crops, torch.float16),
            empty_for_batch(crops, torch.bool),
            torch.empty(scans, len(PARAMETERS)),
            torch.empty(scans, dtype=torch.int64),
            torch.empty(scans, dtype=torch.int64),
            torch.empty(self.phases, scans, self.width),
        )


def random_crop(
    store: VolumeStore, record: VolumeRecord, recipe: CropRecipe, rng: np.random.Generator
) -> Float[np.ndarray, "s s s"]:
    """Read a random cube of a volume; where the volume is smaller, 0 surrounds it.

    Args:
        store: of the volume.
        record: of the volume.
        recipe: side of the cube, and whether its axes are put in a random order and flipped.
        rng: random generator.
    """
    side = recipe.size
    lengths = [min(n, side) for n in record.shape]
    starts = [int(rng.integers(n - k + 1)) for n, k in zip(record.shape, lengths, strict=True)]
    cube = centre_fit(store.read_crop(record, starts, lengths), (side,) * 3)
    if recipe.reorient:
        cube = cube.transpose(rng.permutation(3))
        cube = np.flip(cube, tuple(np.flatnonzero(rng.random(3) < 0.5).tolist()))
    return np.ascontiguousarray(cube)


def log_acquisition(record: VolumeRecord) -> Float32[np.ndarray, "3"]:
    """Return the logarithms of TR (ms), TE (ms) and flip angle (degrees); NaN is unknown."""
    values = [getattr(record.acquisition, name) for name in PARAMETERS]
    return np.log([np.nan if value is None else value for value in values]).astype(np.float32)


def acquisition_statistics(store: VolumeStore) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Return mean and standard deviation of the logarithms of TR, TE and flip angle.

    Where no value is known, or all are the same, they are such that the mean is predicted by 0.
    """
    logarithms = torch.from_numpy(np.stack([log_acquisition(r) for r in store.records]))
    known = ~logarithms.isnan()
    counts = known.sum(0).clamp(min=1)
    mean = logarithms.nan_to_num().sum(0) / counts
    squares = ((logarithms - mean).nan_to_num() ** 2).sum(0) / counts
    std = squares.sqrt()
    return mean, torch.where(std > 1e-6 * mean.abs().clamp(min=1), std, 1.0)


def check_store(store: VolumeStore, recipe: PrismRecipe) -> None:
    """Raise ValueError for intensities from 0 to 1, and for a region that no volume has."""
    store.check_z_scores("PRISM")
    found = sorted({r.acquisition.region for r in store.records} - {""})
    missing = [region for region in recipe.objective.regions if region not in found]
    if missing:
        raise InputError(
            f"no volume of {store.folder} is of the region {some(missing)} of objective.regions; "
            f"allowed: {some(found, 20) if found else 'none, as the store names no regions'}. "
            "Regions come from a column `region` of the table, a sidecar or DICOM's "
            "BodyPartExamined"
        )
