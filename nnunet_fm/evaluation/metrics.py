"""Dice, Hausdorff distance and surface Dice of two masks, with explicit rules for empty ones."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from nnunet_fm.internal.errors import InputError

Mask = Bool[np.ndarray, "*grid"]
# Spacings in headers are rounded; a distance of one voxel is not to exceed a tolerance of one voxel
# for that.
ROUNDING_MM = 1e-4


def dice(prediction: Mask, truth: Mask) -> float:
    """Compute the Dice similarity, 0 to 1. Both masks empty: 1; one empty: 0.

    Raises:
        ValueError: the masks are not boolean, or not of one shape.
    """
    _check_masks(prediction, truth)
    total = int(prediction.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2.0 * int((prediction & truth).sum()) / total


def surface_distances(
    prediction: Mask, truth: Mask, spacing: Sequence[float]
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " t"]] | None:
    """Measure the distance of each surface voxel of one mask to the surface of the other, in mm.

    The surface of a mask is its voxels that have a face neighbour outside it.

    Args:
        prediction: predicted mask.
        truth: true mask of the same shape.
        spacing: mm per voxel along each axis of the arrays.

    Returns:
        Distances from the prediction to the truth, and from the truth to the prediction; None if a
        mask is empty.

    Raises:
        ValueError: the masks are not boolean, or not of one shape.
    """
    _check_masks(prediction, truth)
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
    """Compute HD95 (mm) and surface Dice together; see `hausdorff95` and `surface_dice`.

    Args:
        prediction: predicted mask.
        truth: true mask of the same shape.
        spacing: mm per voxel along each axis of the arrays.
        tolerance: tolerance of the surface Dice, mm.
        diagonal: diagonal of the whole image in mm, if the masks are cropped; that of the masks if
            None.
    """
    if not prediction.any() and not truth.any():
        return 0.0, 1.0
    distances = surface_distances(prediction, truth, spacing)
    if distances is None:
        if diagonal is None:
            diagonal = image_diagonal(truth.shape, spacing)
        return diagonal, 0.0
    hd95 = max(float(np.percentile(d, 95)) for d in distances)
    return hd95, float((np.concatenate(distances) <= tolerance + ROUNDING_MM).mean())


def hausdorff95(prediction: Mask, truth: Mask, spacing: Sequence[float]) -> float:
    """Compute the larger of the two directed 95th percentile surface distances, mm, as MONAI does.

    Both masks empty: 0. One empty: the diagonal of the image in mm; 373.13 for 240 x 240 x 155
    voxels of 1 mm, the penalty of the BraTS challenges. Arguments as for `surface_distances`.
    """
    return surface_scores(prediction, truth, spacing, 0.0)[0]


def surface_dice(
    prediction: Mask, truth: Mask, spacing: Sequence[float], tolerance: float
) -> float:
    """Compute the share of surface voxels within `tolerance` mm of the other surface, 0 to 1.

    After Nikolov et al., JMIR 2021, but voxels are counted instead of areas measured. Both masks
    empty: 1; one empty: 0. Other arguments as for `surface_distances`.
    """
    return surface_scores(prediction, truth, spacing, tolerance)[1]


def image_diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Compute the diagonal of an image in mm: the penalty for an empty or missing mask."""
    return float(np.linalg.norm(np.asarray(shape) * np.asarray(spacing)))


def _check_masks(prediction: Mask, truth: Mask) -> None:
    if prediction.shape != truth.shape or prediction.dtype != bool or truth.dtype != bool:
        raise InputError(
            f"masks of {prediction.dtype} {prediction.shape} and {truth.dtype} {truth.shape}; "
            "allowed: boolean masks of one shape, e.g. labels == 1"
        )


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Return the box around a mask, widened by one voxel so that the whole surface is inside."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)


def _surface(mask: Mask) -> Mask:
    return mask & ~ndimage.binary_erosion(mask)
