"""The volume store: one blosc2 file per volume, in chunks of some slices and rows, read by crop."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from nnunet_fm.encoders.contract import Z_SCORE
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import counted, some
from nnunet_fm_pretrain.data.array_files import read_values
from nnunet_fm_pretrain.data.records import VolumeRecord
from nnunet_fm_pretrain.data.store import Store

Crop = Float[np.ndarray, "z y x"]


class VolumeStore(Store[VolumeRecord]):
    """Random access to crops of every volume. A unit is a volume.

    Args:
        folder: as `pretrain prepare --volumes` wrote it.

    Raises:
        FileNotFoundError, ValueError: as `Store`.

    Example:
        >>> store = VolumeStore(folder)  # doctest: +SKIP
        >>> crop = store.read_crop(store.records[0], (10, 20, 20), (32, 64, 64))  # doctest: +SKIP
    """

    record_type = VolumeRecord
    title = "volume store"
    command = "--volumes "

    def __len__(self) -> int:
        """Return the number of volumes."""
        return len(self.records)

    def describe(self) -> str:
        """Return the number and the shapes of the volumes."""
        shapes = np.array([r.shape for r in self.records])
        smallest = " x ".join(str(n) for n in shapes.min(0))
        largest = " x ".join(str(n) for n in shapes.max(0))
        if smallest == largest:
            return f"{counted(len(self), 'volume')} of {largest} voxels"
        return f"{counted(len(self), 'volume')} of {smallest} to {largest} voxels"

    def check_z_scores(self, method: str) -> None:
        """Raise ValueError for volumes with intensities from 0 to 1.

        Args:
            method: name of what takes z-scores, for the message.
        """
        others = [r.volume for r in self.records if r.intensity != Z_SCORE]
        if others:
            raise InputError(
                f"{self.folder} holds intensities from 0 to 1 ({some(others)}); {method} takes "
                "z-scores. Type: nnunet-fm pretrain prepare DATA --volumes -o STORE"
            )

    def read_crop(self, record: VolumeRecord, start: Sequence[int], shape: Sequence[int]) -> Crop:
        """Read a box of a volume as float32; the background is 0.

        Args:
            record: of the volume.
            start: first voxel (z, y, x).
            shape: voxels (z, y, x).

        Raises:
            ValueError: the box reaches beyond the volume.
        """
        ends = [first + length for first, length in zip(start, shape, strict=True)]
        if min(start) < 0 or any(e > n for e, n in zip(ends, record.shape, strict=True)):
            raise InputError(
                f"a crop of {tuple(shape)} voxels from {tuple(start)} reaches beyond "
                f"{record.volume}, which has {record.shape}"
            )
        box = tuple(slice(first, end) for first, end in zip(start, ends, strict=True))
        return read_values(self.folder, record, box)

    def read_volume(self, record: VolumeRecord) -> Crop:
        """Read a whole volume."""
        return read_values(self.folder, record, slice(None))
