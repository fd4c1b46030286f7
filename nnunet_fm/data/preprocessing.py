"""Crop a volume to its brain, resize it and z-score it (BrainDINO, sections 4.1.2 and 4.3.2)."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch.nn.functional import interpolate

from nnunet_fm.data.volumes import BadVolumeError, Mask, Volume

Box = Float[np.ndarray, "d h w"]
BoxMask = Bool[np.ndarray, "d h w"]
Resized = Float[np.ndarray, "z y x"]
ResizedMask = Bool[np.ndarray, "z y x"]
PERCENTILES = (0.5, 99.5)
SMALLEST_BRAIN = 8  # voxels along the shortest side of the non-zero box


def preprocess_volume(
    volume: Volume,
    brain: Mask,
    shape: tuple[int, int, int],
    percentiles: tuple[float, float] = PERCENTILES,
) -> Float[np.ndarray, "d h w"]:
    """Crop to the brain, resize, clip to percentiles and z-score its non-zero voxels; background 0.

    Args:
        volume: (z, y, x), as returned by `read_volume`.
        brain: brain mask of the volume.
        shape: shape of the result, (z, y, x).
        percentiles: percentiles of the brain's voxels, 0 to 100.

    Raises:
        BadVolumeError: the mask is almost empty, or the brain has one value only.
    """
    stripped = np.where(brain, volume, 0)
    image, inside = resize(stripped[bounding_box(stripped != 0)], shape)
    return zscore(image, inside, percentiles)


def bounding_box(inside: Mask) -> tuple[slice, ...]:
    """Return the smallest box around the voxels of a mask.

    Raises:
        BadVolumeError: the mask is empty, or its box is smaller than 8 voxels along an axis.
    """
    if not inside.any():
        raise BadVolumeError("nothing but zeros inside the brain mask")
    box: tuple[slice, ...] = ndimage.find_objects(inside.astype(np.uint8))[0]
    shape = tuple(s.stop - s.start for s in box)
    if min(shape) < SMALLEST_BRAIN:
        raise BadVolumeError(
            f"the non-zero box has shape {shape}; allowed: at least {SMALLEST_BRAIN} voxels a side"
        )
    return box


def resize(volume: Box, shape: tuple[int, int, int]) -> tuple[Resized, ResizedMask]:
    """Resize trilinearly, after a Gaussian along axes that shrink; also return the brain mask."""
    inside = (volume != 0).astype(np.float32)
    sigma = [max(0.0, (n / to - 1) / 2) for n, to in zip(volume.shape, shape, strict=True)]
    if any(sigma):
        volume = ndimage.gaussian_filter(volume, sigma)
    both = torch.from_numpy(np.stack([volume, inside])[None])
    image, share = interpolate(both, size=shape, mode="trilinear", align_corners=False)[0].numpy()
    return image, share >= 0.5


def zscore(volume: Box, inside: BoxMask, percentiles: tuple[float, float] = PERCENTILES) -> Box:
    """Clip to the percentiles of the voxels inside and z-score over them; 0 outside.

    Raises:
        BadVolumeError: the mask is empty, or the voxels inside have one value only.
    """
    values = volume[inside]
    if not len(values):
        raise BadVolumeError("nothing is left of the brain after resizing")
    low, high = np.percentile(values, percentiles)
    values = np.clip(values, low, high)
    deviation = values.std(dtype=np.float64)
    if not deviation > 1e-6 * max(abs(float(low)), abs(float(high)), 1e-6):
        raise BadVolumeError(
            f"the brain is constant ({low:g}) between the {percentiles} percentiles"
        )
    result = np.zeros_like(volume)
    result[inside] = ((values - values.mean(dtype=np.float64)) / deviation).astype(np.float32)
    return result
