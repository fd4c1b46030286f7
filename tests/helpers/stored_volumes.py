"""Label volumes stored in any orientation, and headers that say where they lie."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import from_matvec


def affine_of(
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    degrees: float = 0.0,
) -> np.ndarray:
    """Return the affine of an image that is turned about the axis from feet to head."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotation = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return from_matvec(rotation * np.array(spacing), origin)


def write_stored(
    path: Path,
    labels: np.ndarray,
    affine: np.ndarray,
    order: Sequence[int] = (0, 1, 2),
    flips: Sequence[int] = (1, 1, 1),
) -> Path:
    """Write labels (x, y, z) with their axes permuted and flipped, every voxel where it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    change = np.stack([np.asarray(order), np.asarray(flips)], axis=1)
    nib.save(nib.Nifti1Image(labels, affine).as_reoriented(change), path)
    return path
