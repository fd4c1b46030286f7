"""The size of the voxels of a run's scans: from the store's records to the exported encoder."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nnunet_fm_pretrain.data.records import VolumeRecord

SAME_SPACING = 0.05  # relative difference of voxels that count as one size
UNKNOWN = (0.0, 0.0, 0.0)


def common_voxel(records: Iterable[VolumeRecord]) -> Float[Tensor, "3"]:
    """Return the median size of a voxel in mm (z, y, x); zeros if a scan's is another.

    Volumes have whole voxels, so their sizes differ a little from the one asked for.
    """
    sizes = np.array([record.spacing for record in records])
    median = np.median(sizes, axis=0)
    same = np.allclose(sizes, median, rtol=SAME_SPACING)
    return torch.tensor(median.tolist() if same else UNKNOWN)


def exported_spacing(voxel: Float[Tensor, "3"]) -> list[float] | None:
    """Return the size of a voxel as an option of an exported encoder; None if it is unknown."""
    if voxel.is_meta or not voxel.all():
        return None
    return [round(float(mm), 2) for mm in voxel]
