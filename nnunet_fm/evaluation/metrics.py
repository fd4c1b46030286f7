"""Dice, Hausdorff distance and surface Dice of two masks, with explicit rules for empty ones."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

Mask = Bool[np.ndarray, "*grid"]


def dice(prediction: Mask, truth: Mask) -> float:
    """Dice similarity in [0, 1]. Both empty: 1; one empty: 0."""
    total = int(prediction.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2.0 * int((prediction & truth).sum()) / total


def surface_distances(
    prediction: Mask, truth: Mask, spacing: Sequence[float]
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " t"]] | None:
    """Distance of each surface voxel of one mask to the other's surface, in mm; None where a mask is empty.

    Surfaces are the voxels of a mask that have a face neighbour outside it.

    Args:
        prediction: mask.
        truth: mask of the same shape.
        spacing: mm per voxel along each axis of the arrays.

    Returns:
        From the prediction to the truth, and back.
    """
    if not prediction.any() or not truth.any():
        return None
    box = _bounding_box(prediction | truth)
    surfaces = [_surface(mask[box]) for mask in (prediction, truth)]
    maps = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    return maps[1][surfaces[0]], maps[0][surfaces[1]]


def surface_scores(
    prediction: Mask,
    truth: Mask,
    spacing: Sequence[float],
    tolerance: float,
    diagonal: float | None = None,
) -> tuple[float, float]:
    """HD95 and surface Dice from one look at the surfaces; see `hausdorff95` and `surface_dice`.

    `diagonal` is the image's in mm, where the masks are cut out of it.
    """
    if not prediction.any() and not truth.any():
        return 0.0, 1.0
    distances = surface_distances(prediction, truth, spacing)
    if distances is None:
        return image_diagonal(truth.shape, spacing) if diagonal is None else diagonal, 0.0
    hd95 = max(float(np.percentile(d, 95)) for d in distances)
    return hd95, float((np.concatenate(distances) <= tolerance).mean())


def hausdorff95(prediction: Mask, truth: Mask, spacing: Sequence[float]) -> float:
    """Larger of the two directed 95th percentile surface distances, in mm (the convention of MONAI).

    Both empty: 0; one empty: the diagonal of the image in mm (373.13 for BraTS' 240x240x155, as the
    BraTS challenges give). Arguments as `surface_distances`.
    """
    return surface_scores(prediction, truth, spacing, 0.0)[0]


def surface_dice(
    prediction: Mask, truth: Mask, spacing: Sequence[float], tolerance: float
) -> float:
    """Share of both surfaces' voxels that are at most `tolerance` mm from the other surface, in [0, 1].

    Nikolov et al., JMIR 2021, with voxels counted in place of areas. Both empty: 1; one empty: 0.
    Other arguments as `surface_distances`.
    """
    return surface_scores(prediction, truth, spacing, tolerance)[1]


def image_diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Diagonal of an image in mm: the penalty distance where one mask is empty or missing."""
    return float(np.linalg.norm(np.asarray(shape) * np.asarray(spacing)))


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The box around a mask and one voxel more, so that its surface is seen whole."""
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(slice(max(0, s.start - 1), s.stop + 1) for s in found)


def _surface(mask: Mask) -> Mask:
    return mask & ~ndimage.binary_erosion(mask)
