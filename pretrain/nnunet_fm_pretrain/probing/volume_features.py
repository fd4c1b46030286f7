"""Features of whole volumes: tokens of a frozen 3-D encoder, or raw voxels."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Integer
from nibabel.affines import voxel_sizes
from torch import Tensor
from torch.nn.functional import avg_pool3d, interpolate, pad

from nnunet_fm.data.preprocessing import resize
from nnunet_fm.data.skull_stripping import Stripper
from nnunet_fm.data.volumes import read_volume
from nnunet_fm.encoders import Encoder
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
    x, y, z = (float(side) for side in voxel_sizes(image.affine))
    brain = strip(volume, image, mask)
    (prepared,) = VolumePreprocessing(spacing).apply([volume], [brain], (z, y, x))
    return rescale_intensity(prepared.values, intensity)


def volume_vector(encoder: Encoder | None, volume: Box) -> Float[np.ndarray, " d"]:
    """Return the vector that an encoder gives a volume; None: the volume shrunk to 8 x 8 x 8."""
    x = torch.from_numpy(np.ascontiguousarray(volume))[None, None]
    with torch.inference_mode():
        if encoder is None:
            return interpolate(x, size=(SHRUNK,) * 3, mode="area").flatten().numpy()
        whole = to_patches(x, encoder.input_spec.divisor)
        copies = whole.expand(-1, encoder.in_channels, -1, -1, -1).to(device_of(encoder))
        return encoder.embed(copies)[0].cpu().numpy()


def to_patches(x: Float[Tensor, "*b z y x"], patch: int) -> Float[Tensor, "*b d h w"]:
    """Pad with 0 behind, so that every side is a multiple of the patch."""
    missing = [-side % patch for side in x.shape[-3:]]
    return pad(x, [n for side in reversed(missing) for n in (0, side)])


def read_volume_case(
    raw: Path, case: str, channels: int, ending: str, spacing: Triple, intensity: str
) -> tuple[Float[np.ndarray, "c z y x"], Integer[np.ndarray, "z y x"]]:
    """Read channels and labels of a case of an nnU-Net raw dataset at a spacing.

    Args:
        raw: `nnUNet_raw/DatasetXXX`.
        case: identifier.
        channels: how many there are.
        ending: of the files.
        spacing: size of a voxel in mm (z, y, x).
        intensity: of the encoder's pretraining.
    """
    images, labels, grid = read_channels(raw, case, channels, ending)
    sides = zip(labels.shape, reversed(grid.spacing), spacing, strict=True)
    z, y, x = (max(1, round(n * old / new)) for n, old, new in sides)
    resampled = []
    for image in images:
        values, inside = resize(image, (z, y, x))
        resampled.append(rescale_intensity(np.where(inside, values, 0), intensity))
    small = interpolate(
        torch.from_numpy(labels.astype(np.float32))[None, None], (z, y, x), mode="nearest-exact"
    )
    return np.stack(resampled), small[0, 0].numpy().astype(np.int64)


def cube_features(
    encoder: Encoder | None,
    images: Float[np.ndarray, "c z y x"],
    patch: int,
    context: int | None = None,
) -> Features:
    """Return a row per patch of a case: the tokens of each channel side by side, or raw voxels.

    Raw voxels are averaged over cells: 4 x 4 x 4 of a patch, and as large ones around it.

    Args:
        encoder: frozen; its last tapped block is used. None: raw voxels.
        images: channels of a case.
        patch: edge of a patch in voxels.
        context: edge of the window of voxels around the patch, if there is no encoder; the patch
            itself if None.
    """
    x = to_patches(torch.from_numpy(images), patch)
    with torch.inference_mode():
        if encoder is None:
            return _raw_windows(x, patch, context or patch)
        channels = []
        for channel in x:
            copies = channel[None, None].expand(-1, encoder.in_channels, -1, -1, -1)
            tokens = encoder.features(copies.to(device_of(encoder)))[-1].cpu()
            channels.append(tokens[0].flatten(1).T)
        return torch.cat(channels, dim=1).numpy()


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
    share = avg_pool3d(to_patches(marked, patch), patch)
    return (share.flatten() >= 0.5).long().numpy()
