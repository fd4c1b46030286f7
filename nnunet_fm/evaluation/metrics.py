"""Dice and the 95th percentile Hausdorff distance of two masks, with explicit rules for empty ones."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

Mask = Bool[np.ndarray, "z y x"]


def dice(prediction: Mask, truth: Mask) -> float:
    """Dice similarity in [0, 1]. Both empty: 1; one empty: 0."""
    total = int(prediction.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2.0 * int((prediction & truth).sum()) / total


def hausdorff95(prediction: Mask, truth: Mask, spacing: Sequence[float]) -> float:
    """Larger of the two directed 95th percentile surface distances, in mm (the convention of MONAI).

    Surfaces are the voxels of a mask that have a face neighbour outside it. Both empty: 0; one empty: the diagonal of
    the image in mm (373.13 for BraTS' 240x240x155, as the BraTS challenges give).

    Args:
        prediction: mask.
        truth: mask of the same shape.
        spacing: mm per voxel along each axis of the arrays.
    """
    if not prediction.any() and not truth.any():
        return 0.0
    if not prediction.any() or not truth.any():
        return image_diagonal(truth.shape, spacing)
    box = _bounding_box(prediction | truth)
    surfaces = [_surface(mask[box]) for mask in (prediction, truth)]
    distances = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    directed = [distances[1][surfaces[0]], distances[0][surfaces[1]]]
    return float(max(np.percentile(d, 95) for d in directed))


def image_diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Diagonal of an image in mm: the penalty distance where one mask is empty or missing."""
    return float(np.linalg.norm(np.asarray(shape) * np.asarray(spacing)))


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The box around a mask and one voxel more, so that its surface is seen whole."""
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(slice(max(0, s.start - 1), s.stop + 1) for s in found)


def _surface(mask: Mask) -> Mask:
    return mask & ~ndimage.binary_erosion(mask)
