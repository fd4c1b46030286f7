"""Batches of BrainFM-MRI: the scans of several sessions, and the patches that are visible."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float16, Int64
from torch import Tensor
from torch.utils.data import Dataset

from nnunet_fm.encoders.modality_text import LEARNED
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.engine.loader import empty_for_batch
from nnunet_fm_pretrain.methods.brainfm.recipe import BrainFMRecipe
from nnunet_fm_pretrain.methods.brainfm.sessions import Scan, SessionOrder, SessionSource, place_of

HIDDEN_NAMES = 0.1  # share of the names of learned text, if the recipe has none
_STREAM = 1  # number of the random stream of samples


class SessionBatch(NamedTuple):
    """`b` sessions of up to `m` scans; the places of the missing ones are empty.

    Attributes:
        volumes: z-scores.
        inside: where the scan lies in its cube: first voxel and the one behind the last; 0, 0 for
            an empty place.
        names: row of the text of each scan; 0 for an empty place.
        visible: the patches that the encoder sees, scan by scan.
    """

    volumes: Float16[Tensor, "b m s s s"]
    inside: Int64[Tensor, "b m 3 2"]
    names: Int64[Tensor, "b m"]
    visible: Bool[Tensor, "b l"]


class SessionBatches(Dataset[SessionBatch]):
    """Batches by step number; everything in one derives from (seed, sample number).

    Args:
        store: volumes as z-scores.
        recipe: of the run.
        patch: edge of a patch in voxels.
        rank: of this process.
        ranks: number of processes.

    Raises:
        ValueError: see `SessionSource`; a cube that is not made of whole patches; or a batch that
            the ranks cannot share.
    """

    def __init__(
        self, store: VolumeStore, recipe: BrainFMRecipe, patch: int, rank: int = 0, ranks: int = 1
    ) -> None:
        size = recipe.sessions.size
        if size % patch or size < 2 * patch:
            raise InputError(
                f"sessions.size {size} for patches of {patch} voxels; allowed: a multiple from "
                f"{2 * patch}"
            )
        self.source, self.recipe = SessionSource(store, recipe.sessions), recipe
        self._check_patches(patch)
        self.order = SessionOrder(self.source.counts(), recipe.optimiser.batch_size, recipe.seed)
        self.order.samples(0, rank, ranks)  # refuses a batch that cannot be shared
        self.patch, self.rank, self.ranks = patch, rank, ranks

    def _check_patches(self, patch: int) -> None:
        """Raise ValueError for scans of a single patch that may be alone in a step.

        None of its patches could be hidden.
        """
        side = self.recipe.sessions.size
        alone = [s for s in self.source.sessions if min(len(s), self.recipe.sessions.most) == 1]
        for record in (record for session in alone for record in session):
            inside = torch.from_numpy(place_of(record.shape, side)[1])
            if int(valid_patches(inside, side, patch).sum()) < 2:
                raise InputError(
                    f"{record.volume} lies within one patch of {patch} voxels; exclude it, or "
                    "prepare with a smaller --spacing"
                )

    def __len__(self) -> int:
        return self.recipe.optimiser.steps

    def __getitem__(self, step: int) -> SessionBatch:
        sessions, generators = [], []
        for sample in self.order.samples(step, self.rank, self.ranks):
            rng = np.random.default_rng([self.recipe.seed, _STREAM, sample])
            sessions.append(self.source.read(self.order.index_of(sample), rng))
            generators.append(rng)
        batch = self._empty(len(sessions), max(map(len, sessions)))
        for place, (scans, rng) in enumerate(zip(sessions, generators, strict=True)):
            self._fill(batch, place, scans, rng)
        return batch

    def _fill(
        self, batch: SessionBatch, place: int, scans: list[Scan], rng: np.random.Generator
    ) -> None:
        for slot, scan in enumerate(scans):
            batch.volumes[place, slot] = torch.from_numpy(np.ascontiguousarray(scan.voxels))
            batch.inside[place, slot] = torch.from_numpy(scan.inside)
            batch.names[place, slot] = self._name(scan, rng)
        valid = valid_patches(batch.inside[place], self.recipe.sessions.size, self.patch)
        numbers = np.flatnonzero(valid.flatten().numpy())
        kept = len(numbers) - round(self.recipe.objective.mask_ratio * len(numbers))
        kept = min(max(1, kept), len(numbers) - 1)
        batch.visible[place, rng.permutation(numbers)[:kept]] = True

    def _name(self, scan: Scan, rng: np.random.Generator) -> int:
        """Return the row of a scan's text: the last one if its name is hidden."""
        text = self.recipe.text
        if text.source == LEARNED and rng.random() < (text.unknown or HIDDEN_NAMES):
            return len(self.recipe.sessions.names)
        return scan.name

    def _empty(self, sessions: int, scans: int) -> SessionBatch:
        side = self.recipe.sessions.size
        patches = scans * (side // self.patch) ** 3
        batch = SessionBatch(
            empty_for_batch((sessions, scans, side, side, side), torch.float16),
            empty_for_batch((sessions, scans, 3, 2), torch.int64),
            empty_for_batch((sessions, scans), torch.int64),
            empty_for_batch((sessions, patches), torch.bool),
        )
        for part in batch:
            part.zero_()
        return batch


def inside_axes(
    inside: Int64[Tensor, "*scans 3 2"], side: int
) -> tuple[Bool[Tensor, "*scans s"], ...]:
    """Return for each axis which voxels lie inside the scan."""
    voxels = torch.arange(side, device=inside.device)
    bounds = inside.unsqueeze(-3)  # (..., 1, 3, 2)
    flags = (voxels[:, None] >= bounds[..., 0]) & (voxels[:, None] < bounds[..., 1])
    return tuple(flags.unbind(-1))


def valid_patches(
    inside: Int64[Tensor, "*scans 3 2"], side: int, patch: int
) -> Bool[Tensor, "*scans t"]:
    """Return the patches of which a voxel lies inside the scan, in the order of the tokens."""
    z, y, x = (flags.unflatten(-1, (-1, patch)).any(-1) for flags in inside_axes(inside, side))
    return _outer(z, y, x).flatten(-3)


def inside_voxels(inside: Int64[Tensor, "*scans 3 2"], side: int) -> Bool[Tensor, "*scans s s s"]:
    """Return the voxels that lie inside the scan."""
    return _outer(*inside_axes(inside, side))


def _outer(z: Tensor, y: Tensor, x: Tensor) -> Tensor:
    return z[..., :, None, None] & y[..., None, :, None] & x[..., None, None, :]
