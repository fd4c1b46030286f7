"""Read label files: whole numbers, and where their voxels lie."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Integer, Num

from nnunet_fm.data.grids import Grid, read_grid, read_values
from nnunet_fm.internal.errors import InputError

NIFTI = (".nii", ".nii.gz")
ROUNDING = 1e-3  # a value this close to a whole number is that label
LARGEST = np.iinfo(np.int32).max

Labels = Integer[np.ndarray, "*grid"]


@dataclass(frozen=True, eq=False)
class LabelImage:
    """The labels of an image, and where they lie.

    Attributes:
        labels: whole numbers, (z, y, x) or (y, x).
        grid: place of the voxels.
    """

    labels: Labels
    grid: Grid

    @property
    def spacing(self) -> tuple[float, ...]:
        """Mm per voxel along each axis of the array."""
        return tuple(reversed(self.grid.spacing[: self.labels.ndim]))


def read_labels(path: Path) -> LabelImage:
    """Read a label file of any format that SimpleITK reads.

    Raises:
        ValueError: the file is no image of labels; see `whole_labels` and `read_grid`.
    """
    grid = read_grid(path)
    values = read_values(path)
    if values.dtype.kind == "f" and path.name.lower().endswith(NIFTI):
        # SimpleITK silently turns NaN into 0
        values = np.asanyarray(nib.load(path).dataobj).T.reshape(values.shape)
    return LabelImage(whole_labels(values, path), grid)


def foreground(labels: Labels) -> frozenset[int]:
    """Return the labels that occur, without 0."""
    return frozenset(int(label) for label in np.unique(labels[labels != 0]))


def whole_labels(values: Num[np.ndarray, "*grid"], path: Path) -> Labels:
    """Return labels as whole numbers, rounding away what scaling in the header has left.

    Args:
        values: values of a label file.
        path: the file, for the error's message.

    Raises:
        ValueError: a value further than 1e-3 from a whole number, NaN, or beyond 32 bits.
    """
    rounded = values
    if values.dtype.kind == "f":
        rounded = np.rint(values)
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            wrong = ~(np.abs(values - rounded) <= ROUNDING)
        if wrong.any():
            raise InputError(
                f"{path} has {int(wrong.sum())} voxels that are no label, the first of value "
                f"{values[wrong][0]:.6g}; allowed: whole numbers (within {ROUNDING:g}). Labels are "
                "resampled with nearest neighbours, and probabilities need a threshold"
            )
    if rounded.size and max(abs(int(rounded.min())), abs(int(rounded.max()))) > LARGEST:
        raise InputError(f"{path} has labels beyond {LARGEST}; allowed: 32-bit whole numbers")
    return rounded.astype(np.int32)
