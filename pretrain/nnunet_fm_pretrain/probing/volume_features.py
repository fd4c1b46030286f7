"""Features of whole volumes: tokens of a frozen 3-D encoder, or raw voxels."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import avg_pool3d, interpolate, pad

from nnunet_fm.data.preprocessing import resize, shape_at_spacing, zscore
from nnunet_fm.data.skull_stripping import Stripper
from nnunet_fm.data.volumes import read_volume, voxel_size
from nnunet_fm.encoders import Encoder
from nnunet_fm.encoders.contract import Z_SCORE_EVERYWHERE
from nnunet_fm.encoders.intensity import rescale_intensity
from nnunet_fm_pretrain.data.preprocessing import Triple, VolumePreprocessing
from nnunet_fm_pretrain.probing.features import device_of, read_channels
from nnunet_fm_pretrain.probing.linear_probes import Features

SHRUNK = 8  # voxels a side that stand for a whole volume
CELLS = 4  # a side, that stand for the voxels of a patch

Box = Float[np.ndarray, "z y x"]


def read_whole(
    path: Path, mask: Path | None, strip: Stripper, spacing: Triple, intensity: str
) -> Box:
    """Read a volume as `pretrain prepare --volumes` stores it.

    Args:
        path: NIfTI file or DICOM folder.
        mask: its brain mask, for the plug-in that needs one.
        strip: skull stripping plug-in.
        spacing: size of a voxel in mm (z, y, x).
        intensity: of the encoder's pretraining.
    """
    volume, image = read_volume(path)
    brain = strip(volume, image, mask)
    (prepared,) = VolumePreprocessing(spacing).apply([volume], [brain], voxel_size(image))
    return rescale_intensity(prepared.values, intensity)


def volume_vector(encoder: Encoder | None, volume: Box) -> Float[np.ndarray, " d"]:
    """Return the vector that an encoder gives a volume; None: the volume shrunk to 8 x 8 x 8."""
    x = torch.from_numpy(np.ascontiguousarray(volume))[None, None]
    with torch.inference_mode():
        if encoder is None:
            return interpolate(x, size=(SHRUNK,) * 3, mode="area").flatten().numpy()
        spec = encoder.input_spec
        whole = to_multiple(x, spec.divisor, background_of(volume, spec.intensity))
        copies = whole.expand(-1, encoder.in_channels, -1, -1, -1).to(device_of(encoder))
        return encoder.embed(copies)[0].cpu().numpy()


def background_of(image: Box, intensity: str) -> float:
    """Return the value of an image's background: 0, or the lowest where all voxels are scored."""
    return float(image.min()) if intensity == Z_SCORE_EVERYWHERE else 0.0


def to_multiple(
    x: Float[Tensor, "*b z y x"], step: int, background: float = 0.0
) -> Float[Tensor, "*b d h w"]:
    """Pad with the background at the end of each axis, to multiples of `step`."""
    missing = [-side % step for side in x.shape[-3:]]
    return pad(x, [n for side in reversed(missing) for n in (0, side)], value=background)


def read_volume_case(
    raw: Path,
    case: str,
    channels: Sequence[int],
    ending: str,
    spacing: Triple,
    intensity: str,
    window: int,
) -> tuple[Float[np.ndarray, "c z y x"], Integer[np.ndarray, "z y x"]]:
    """Read channels and labels of a case of an nnU-Net raw dataset at a spacing.

    Args:
        raw: `nnUNet_raw/DatasetXXX`.
        case: identifier.
        channels: their numbers.
        ending: of the files.
        spacing: size of a voxel in mm (z, y, x).
        intensity: of the encoder's pretraining.
        window: edge of the cubes in voxels that an encoder gets; sides are padded to multiples.
    """
    images, labels, grid = read_channels(raw, case, channels, ending)
    x_side, y_side, z_side = grid.spacing
    z, y, x = shape_at_spacing(labels.shape, (z_side, y_side, x_side), spacing)
    resampled = []
    for image in images:
        resampled.append(rescale_intensity(zscore(*resize(image, (z, y, x))), intensity))
    small = interpolate(
        torch.from_numpy(labels.astype(np.float32))[None, None], (z, y, x), mode="nearest-exact"
    )
    padded = [
        to_multiple(torch.from_numpy(image), window, background_of(image, intensity))
        for image in resampled
    ]
    return torch.stack(padded).numpy(), to_multiple(small[0], window)[0].numpy().astype(np.int64)


def cube_features(
    encoder: Encoder | None,
    images: Float[np.ndarray, "c z y x"],
    patch: int,
    context: int | None = None,
) -> Features:
    """Return a row per patch of a case: the tokens of each channel side by side, or raw voxels.

    The encoder gets cubes of the size that it was pretrained on, where the sides are multiples of
    it; else the whole image. Raw voxels are averaged over cells: 4 x 4 x 4 of a patch, and cells as
    large around it.

    Args:
        encoder: frozen; its last tapped block is used. None: raw voxels.
        images: channels of a case.
        patch: edge of a patch in voxels.
        context: edge of the window of voxels around the patch, if there is no encoder; the patch
            itself if None.
    """
    x = torch.from_numpy(images)
    with torch.inference_mode():
        if encoder is None:
            return _raw_windows(x, patch, context or patch)
        maps = [_token_map(encoder, channel) for channel in x]
        return torch.cat(maps).flatten(1).T.numpy()


def _token_map(encoder: Encoder, channel: Float[Tensor, "z y x"]) -> Float[Tensor, "d tz ty tx"]:
    """Compute the last tapped map of an image, cube by cube."""
    spec = encoder.input_spec
    sides = spec.native_size if _fits(channel, spec.native_size) else tuple(channel.shape)
    tokens = tuple(side // spec.divisor for side in sides)
    grid = tuple(n // spec.divisor for n in channel.shape)
    result = torch.empty(encoder.feature_info[-1].channels, *grid)
    starts = [range(0, n, side) for n, side in zip(channel.shape, sides, strict=True)]
    for start in product(*starts):
        cube = channel[tuple(slice(s, s + side) for s, side in zip(start, sides, strict=True))]
        copies = cube[None, None].expand(-1, encoder.in_channels, -1, -1, -1)
        first = [s // spec.divisor for s in start]
        place = tuple(slice(f, f + t) for f, t in zip(first, tokens, strict=True))
        result[(slice(None), *place)] = encoder.features(copies.to(device_of(encoder)))[-1][0].cpu()
    return result


def _fits(channel: Float[Tensor, "z y x"], window: Sequence[int]) -> bool:
    return all(n % side == 0 for n, side in zip(channel.shape, window, strict=True))


def _raw_windows(x: Float[Tensor, "c z y x"], patch: int, context: int) -> Features:
    cell = max(1, patch // CELLS)
    cells = avg_pool3d(x, cell)
    step, window = patch // cell, context // cell
    border = (window - step) // 2
    windows = pad(cells, (border,) * 6)
    for axis in (1, 2, 3):
        windows = windows.unfold(axis, window, step)
    return windows.permute(1, 2, 3, 0, 4, 5, 6).flatten(3).flatten(0, 2).numpy()


def cube_labels(labels: Integer[np.ndarray, "z y x"], patch: int) -> Integer[np.ndarray, " n"]:
    """Label patches: 1 if at least half of the patch is labelled, else 0."""
    marked = (torch.from_numpy(labels) > 0).float()[None]
    share = avg_pool3d(marked, patch)
    return (share.flatten() >= 0.5).long().numpy()
