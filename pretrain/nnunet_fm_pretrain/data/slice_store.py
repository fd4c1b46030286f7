"""The slice store: one blosc2 file per volume, one slice per chunk, and a manifest."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import counted
from nnunet_fm_pretrain.data.array_files import read_values
from nnunet_fm_pretrain.data.records import SliceRecord
from nnunet_fm_pretrain.data.store import Store

Slice = Float[np.ndarray, "h w"]
Slices = Float[np.ndarray, "n h w"]


class SliceStore(Store[SliceRecord]):
    """Random access to every slice.

    Args:
        folder: of the store.

    Attributes:
        size: side of the slices in pixels.

    Raises:
        FileNotFoundError, ValueError: as `Store`, or slices of several sizes.
    """

    record_type = SliceRecord
    title = "slice store"
    command = ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        sizes = sorted({r.size for r in self.records})
        if len(sizes) > 1:
            raise InputError(
                f"{folder} holds slices of sides {sizes}; "
                "a store holds one slice size: rerun `nnunet-fm pretrain prepare`"
            )
        self.size = sizes[0]
        self._ends = np.cumsum([len(r.slices) for r in self.records])

    def __len__(self) -> int:
        """Return the number of slices."""
        return int(self._ends[-1])

    def describe(self) -> str:
        """Return the number and the size of the slices."""
        return f"{counted(len(self), 'slice')} of {self.size} px"

    def locate(self, index: int) -> tuple[SliceRecord, int]:
        """Return the volume of slice number `index`, and the slice's place in it."""
        volume = int(np.searchsorted(self._ends, index, side="right"))
        before = int(self._ends[volume - 1]) if volume else 0
        return self.records[volume], index - before

    def read(self, index: int) -> Slice:
        """Read slice number `index` as float32: z-scores, background 0."""
        record, place = self.locate(index)
        return self.read_slice(record, place)

    def read_slice(self, record: SliceRecord, place: int) -> Slice:
        """Read the slice at `place` among a volume's slices."""
        return read_values(self.folder, record, place)

    def read_slab(self, record: SliceRecord, first: int, depth: int) -> Slices:
        """Read `depth` stored slices from place `first` on.

        They are neighbours in the volume if the store was prepared with `--slices all`.

        Raises:
            ValueError: the slab reaches beyond the volume's slices.
        """
        count = len(record.slices)
        if not 0 <= first <= first + depth <= count:
            raise InputError(
                f"slices {first} to {first + depth - 1} of {record.volume}; "
                f"allowed: 0 to {count - 1}"
            )
        return read_values(self.folder, record, slice(first, first + depth))

    def read_volume(self, record: SliceRecord) -> Slices:
        """Read all slices of a volume."""
        return read_values(self.folder, record, slice(None))
