"""Sessions of a volume store: any of their scans, cropped or padded to one cube."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown
from nnunet_fm_pretrain.data.records import VolumeRecord
from nnunet_fm_pretrain.data.sampling import SampleOrder
from nnunet_fm_pretrain.data.volume_store import Crop, VolumeStore
from nnunet_fm_pretrain.methods.brainfm.recipe import SessionRecipe

WINDOW = 8  # batches whose sessions are sorted by their number of scans


class Scan(NamedTuple):
    """A scan in its cube.

    Attributes:
        voxels: z-scores; 0 around the scan.
        inside: first voxel of the scan in the cube and the one behind its last, for each axis.
        name: number of its sequence in the recipe's names.
    """

    voxels: Float[np.ndarray, "s s s"]
    inside: Int64[np.ndarray, "3 2"]
    name: int


class SessionSource:
    """The sessions of a store that have at least one of the sequences.

    Args:
        store: volumes as z-scores.
        recipe: names, size and changes.

    Attributes:
        sessions: records of the scans that are taken, session by session.
        unused: volumes of other sequences.

    Raises:
        ValueError: a sequence that no session has, or intensities from 0 to 1.
    """

    def __init__(self, store: VolumeStore, recipe: SessionRecipe) -> None:
        self.store, self.recipe = store, recipe
        found = {record.sequence for record in store.records}
        missing = [name for name in recipe.names if name not in found]
        if missing:
            allowed = sorted(name or "an unknown sequence" for name in found)
            raise InputError(
                unknown(
                    "modality",
                    ", ".join(missing),
                    allowed,
                    f"These are in {store.folder}; give theirs: sessions.names=[...].",
                )
            )
        store.check_z_scores("BrainFM-MRI")
        taken = [[r for r in s if r.sequence in recipe.names] for s in store.sessions()]
        self.sessions = [session for session in taken if session]
        self.unused = [r.volume for r in store.records if r.sequence not in recipe.names]

    def __len__(self) -> int:
        return len(self.sessions)

    def counts(self) -> list[int]:
        """Return the number of scans of each session at a step."""
        return [min(len(session), self.recipe.most) for session in self.sessions]

    def read(self, number: int, rng: np.random.Generator) -> list[Scan]:
        """Read the scans of a session, changed by the random generator."""
        session = self.sessions[number]
        if len(session) > self.recipe.most:
            drawn = rng.choice(len(session), self.recipe.most, replace=False)
            session = [session[place] for place in np.sort(drawn)]
        mirrored = rng.random() < self.recipe.flip
        return [self._scan(record, mirrored, rng) for record in session]

    def _scan(self, record: VolumeRecord, mirrored: bool, rng: np.random.Generator) -> Scan:
        voxels, inside = centred(self.store.read_volume(record), self.recipe.size)
        if mirrored:
            voxels = voxels[:, :, ::-1]
            inside[2] = self.recipe.size - inside[2, ::-1]
        head = voxels != 0
        if self.recipe.scale:
            voxels = voxels * np.float32(rng.uniform(1 - self.recipe.scale, 1 + self.recipe.scale))
        if self.recipe.noise:
            noise = rng.standard_normal(voxels.shape, dtype=np.float32)
            voxels = voxels + np.float32(self.recipe.noise) * noise * head
        return Scan(voxels, inside, self.recipe.names.index(record.sequence))


def centred(volume: Crop, side: int) -> tuple[Float[np.ndarray, "s s s"], Int64[np.ndarray, "3 2"]]:
    """Crop or pad a volume to a cube around its middle.

    Returns:
        The cube, and where the volume lies in it: first voxel and the one behind the last.
    """
    source, inside = place_of(volume.shape, side)
    cube = np.zeros((side,) * 3, np.float32)
    cube[tuple(slice(*bounds) for bounds in inside)] = volume[source]
    return cube, inside


def place_of(shape: Sequence[int], side: int) -> tuple[tuple[slice, ...], Int64[np.ndarray, "3 2"]]:
    """Return the box of a volume that a cube around its middle holds, and where it lies there."""
    inside = np.zeros((3, 2), np.int64)
    source = []
    for axis, length in enumerate(shape):
        common = min(side, length)
        first = (length - common) // 2
        source.append(slice(first, first + common))
        start = (side - common) // 2
        inside[axis] = start, start + common
    return tuple(source), inside


class SessionOrder(SampleOrder):
    """The order of `SampleOrder`; sessions with the same number of scans share a batch if possible.

    Sessions are sorted by their number of scans within a few batches; the order of the batches is
    random. An epoch still shows every session once.

    Args:
        counts: scans of each session.
        batch_size: sessions per step, over all ranks.
        seed: of the run.

    Raises:
        ValueError: fewer sessions than a batch.
    """

    def __init__(self, counts: list[int], batch_size: int, seed: int) -> None:
        super().__init__(len(counts), batch_size, seed, "sessions")
        self.counts = np.array(counts)
        self._epoch: tuple[int, Int64[np.ndarray, " n"]] | None = None

    def index_of(self, sample: int) -> int:
        """Return the number of the session that sample number `sample` shows."""
        epoch, place = divmod(sample, self.units)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._order(epoch)
        return int(self._epoch[1][place])

    def _order(self, epoch: int) -> Int64[np.ndarray, " n"]:
        first = epoch * self.units
        order = np.array([super(SessionOrder, self).index_of(first + n) for n in range(self.units)])
        # batches do not begin with the epoch, unless it is a multiple of them
        start = -first % self.batch_size
        rng = np.random.default_rng([self.seed, epoch, 1])
        pieces = [order[:start]]
        for window in _pieces(order[start:], self.batch_size * WINDOW):
            ranked = window[np.argsort(self.counts[window], kind="stable")]
            batches = _pieces(ranked, self.batch_size)
            full = [batch for batch in batches if len(batch) == self.batch_size]
            pieces += [full[n] for n in rng.permutation(len(full))]
            pieces += batches[len(full) :]
        return np.concatenate(pieces)


def _pieces(numbers: Int64[np.ndarray, " n"], length: int) -> list[Int64[np.ndarray, " _"]]:
    return [numbers[first : first + length] for first in range(0, len(numbers), length)]
