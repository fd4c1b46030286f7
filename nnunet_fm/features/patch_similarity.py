"""Similarity of every patch of a slice to reference points (BrainDINO, equation 12)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from nnunet_fm.data.preprocessing import preprocess_volume
from nnunet_fm.data.skull_stripping import find_stripper
from nnunet_fm.data.volumes import read_volume
from nnunet_fm.encoders import Encoder
from nnunet_fm.encoders.loading.weight_source import is_path
from nnunet_fm.features.opening import open_encoder
from nnunet_fm.internal.errors import InputError

Point = tuple[int, int]  # row and column, pixels of the slice
Slice = Float[np.ndarray, "h w"]


def similarity_maps(
    tokens: Float[Tensor, "d th tw"], points: Sequence[Point], shape: Point
) -> Float[Tensor, "p h w"]:
    """Return the cosine similarity of each patch with the patch under each point.

    Args:
        tokens: patch tokens as a map.
        points: row and column of each reference point, in pixels of the slice.
        shape: rows and columns of the slice.

    Returns:
        A map per point, -1 to 1, interpolated bilinearly to the slice's pixels.

    Raises:
        ValueError: a point outside the slice.
    """
    height, width = shape
    for row, column in points:
        if not (0 <= row < height and 0 <= column < width):
            raise InputError(
                f"point {row},{column} on a slice of {height} x {width} pixels; "
                f"allowed: 0,0 to {height - 1},{width - 1}"
            )
    unit = normalize(tokens.float(), dim=0)
    rows, columns = unit.shape[1:]
    references = torch.stack([unit[:, r * rows // height, c * columns // width] for r, c in points])
    maps = torch.einsum("pd,dhw->phw", references, unit)
    return interpolate(maps[None], size=shape, mode="bilinear", align_corners=False)[0]


@torch.inference_mode()
def slice_similarities(
    encoder: Encoder, image: Slice, points: Sequence[Point]
) -> Float[np.ndarray, "p rows columns"]:
    """Return `similarity_maps` of an encoder's last tapped block on one preprocessed slice.

    Args:
        encoder: frozen 2-D encoder.
        image: z-scores, background 0; cropped at the right and bottom to whole patches.
        points: row and column of each reference point, in pixels.

    Raises:
        ValueError: a 3-D encoder, a slice smaller than a patch, or a point outside.
    """
    if encoder.input_spec.spatial_dims != 2:
        raise InputError("similarity maps need a 2-D encoder; this encoder takes volumes")
    if encoder.input_spec.slices > 1:
        raise InputError(
            f"an encoder of {encoder.input_spec.slices} adjacent slices; allowed: one of single "
            "slices, as a similarity map is of one"
        )
    step = encoder.input_spec.divisor
    height, width = (n // step * step for n in image.shape)
    if not height or not width:
        raise InputError(
            f"a slice of {image.shape[0]} x {image.shape[1]} pixels is smaller than a patch "
            f"of {step} x {step}"
        )
    x = torch.from_numpy(np.ascontiguousarray(image[:height, :width])).float()
    encoder.eval()
    tokens = encoder.features(x.expand(1, encoder.in_channels, -1, -1))[-1][0]
    return similarity_maps(tokens, points, (height, width)).numpy()


def volume_similarities(
    volume: Path,
    encoders: Sequence[str],
    index: int,
    points: Sequence[Point],
    shape: tuple[int, int, int],
    strip: str = "none",
    seed: int | None = None,
    card: str | None = None,
    options: dict[str, Any] | None = None,
) -> tuple[Slice, dict[str, Float[np.ndarray, "p rows columns"]]]:
    """Preprocess a volume and compute the similarity maps of several encoders on one slice.

    Args:
        volume: NIfTI file or DICOM folder.
        encoders: weight files, cards or architectures, see `open_encoder`.
        index: axial slice of the preprocessed volume, from 0.
        points: reference points on that slice.
        shape: voxels of the preprocessed volume, (z, y, x).
        strip: skull-stripping plug-in, see `find_stripper`.
        seed: seed of random weights, for encoders that are not files.
        card: weight card of the files, if they do not identify themselves.
        options: options of every architecture, instead of those of the card.

    Returns:
        The slice, and the maps of each encoder by its name.

    Raises:
        ValueError: no such slice or point; or see `slice_similarities`.
    """
    if not 0 <= index < shape[0]:
        raise InputError(f"slice {index}; allowed: 0 to {shape[0] - 1} (--shape)")
    for row, column in points:
        if not (0 <= row < shape[1] and 0 <= column < shape[2]):
            raise InputError(
                f"point {row},{column} on a slice of {shape[1]} x {shape[2]}; allowed: 0,0 to "
                f"{shape[1] - 1},{shape[2] - 1} (--shape)"
            )
    if card and not any(is_path(source) for source in encoders):
        raise InputError(f"--card {card} is for a weight file; give one, or remove --card")
    opened = []
    for source in encoders:
        is_file = is_path(source)
        opened.append(
            open_encoder(
                source,
                card if is_file else None,
                seed=None if is_file else seed,
                options=options,
            )
        )
    voxels, image = read_volume(volume)
    brain = find_stripper(strip)(voxels, image, None)
    shown = preprocess_volume(voxels, brain, shape)[index]
    maps = {}
    for encoder, recipe in opened:
        name = recipe.name if recipe.name not in maps else f"{recipe.name} ({recipe.encoder[:6]})"
        maps[name] = slice_similarities(encoder, shown, points)
    return shown, maps
