"""Crop a volume to its brain, resize it and z-score it (BrainDINO, sections 4.1.2 and 4.3.2)."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch.nn.functional import interpolate

from nnunet_fm.data.volumes import BadVolumeError, Mask, Volume
from nnunet_fm.internal.errors import InputError

Box = Float[np.ndarray, "d h w"]
BoxMask = Bool[np.ndarray, "d h w"]
Resized = Float[np.ndarray, "z y x"]
ResizedMask = Bool[np.ndarray, "z y x"]
Millimetres = tuple[float, float, float]  # (z, y, x)
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
    (box,) = crop_to_brains([volume], [brain])
    return resize_brain(box, shape, percentiles)


def resize_brain(
    box: Box, shape: tuple[int, int, int], percentiles: tuple[float, float] = PERCENTILES
) -> Resized:
    """Resize the box of a brain, see `crop_to_brains`, to a shape, and z-score it."""
    return zscore(*resize(box, shape), percentiles)


def resample_brain(
    box: Box,
    before: Millimetres,
    after: Millimetres,
    shape: tuple[int, int, int],
    percentiles: tuple[float, float] = PERCENTILES,
) -> Resized:
    """Resample the box of a brain to a spacing, z-score it, and pad it with 0 to `shape`.

    Args:
        box: of the brain, see `crop_to_brains`.
        before: size of a voxel of the box in mm, (z, y, x).
        after: of the result.
        shape: of the result, (z, y, x).
        percentiles: see `preprocess_volume`.

    Raises:
        BadVolumeError: as `preprocess_volume`, or a brain that is larger than the shape.
    """
    resampled = shape_at_spacing(box.shape, before, after)
    if any(have > want for have, want in zip(resampled, shape, strict=True)):
        voxels = "x".join(map(str, resampled))
        sides = "x".join(f"{side:g}" for side in after)
        raise BadVolumeError(
            f"the brain has {voxels} voxels (z, y, x) of {sides} mm, more than the shape "
            f"{'x'.join(map(str, shape))}; choose a larger shape, or strip the skull"
        )
    return centre_fit(zscore(*resize(box, resampled), percentiles), shape)


def crop_to_brains(
    volumes: Sequence[Volume], brains: Sequence[Mask]
) -> list[Float[np.ndarray, "d h w"]]:
    """Set everything outside the brains to 0, and crop all volumes to one box around what remains.

    Raises:
        BadVolumeError: no volume, or hardly anything inside the masks.
    """
    if not volumes:
        raise BadVolumeError("no volume of this session can be read")
    stripped = [np.where(brain, volume, 0) for volume, brain in zip(volumes, brains, strict=True)]
    box = bounding_box(np.any([s != 0 for s in stripped], axis=0))
    return [s[box] for s in stripped]


def shape_at_spacing(
    shape: Sequence[int], before: Millimetres, after: Millimetres
) -> tuple[int, int, int]:
    """Return the shape of a volume at another size of its voxels, at least 1 voxel a side."""
    sizes = zip(shape, before, after, strict=True)
    z, y, x = (max(1, round(n * old / new)) for n, old, new in sizes)
    return z, y, x


def check_spacing(spacing: Millimetres) -> Millimetres:
    """Raise InputError unless each side of a voxel is 0.1 to 20 mm."""
    if not all(0.1 <= side <= 20 for side in spacing):
        raise InputError(f"spacing {spacing}; allowed: 0.1 to 20 mm")
    return spacing


def centre_fit(
    values: Float[np.ndarray, "z y x"], shape: tuple[int, int, int]
) -> Float[np.ndarray, "d h w"]:
    """Crop or pad with 0 on both sides to `shape`."""
    result = np.zeros(shape, values.dtype)
    source, target = [], []
    for have, want in zip(values.shape, shape, strict=True):
        length = min(have, want)
        first, start = (have - length) // 2, (want - length) // 2
        source.append(slice(first, first + length))
        target.append(slice(start, start + length))
    result[tuple(target)] = values[tuple(source)]
    return result


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
