"""Patch, batch and field of view of a configuration."""

import math
from collections.abc import Sequence
from typing import Any

from nnunet_fm.internal.errors import InputError
from nnunet_fm.network.input_size import check_patch


def place(
    stock: dict[str, Any],
    base: str,
    patch: Sequence[int],
    step: int,
    fov: str,
    batch_size: int | None,
    stack: int | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """A configuration that inherits from `base` with its own patch, batch and field of view, and that in words.

    Args:
        stock: the configuration `base`, resolved.
        base: its name.
        patch: one side, or one per dimension, in pixels or voxels.
        step: sides must be multiples of it.
        fov: `native` keeps the spacing and pads; `fit` resamples so that the patch covers the
            median slice, on data that nnU-Net has to preprocess anew; for slices only.
        batch_size: slices, stacks or volumes per step; the stock one scaled by their pixels if
            None.
        stack: slices in a 2.5-D patch; None for 2-D and 3-D ones.

    Raises:
        ValueError: an impossible patch or field of view; the possible ones are named.
    """
    dims = len(stock["patch_size"])
    sides = list(patch) * dims if len(patch) == 1 else list(patch)
    check_patch(sides, step, dims)
    if fov == "fit" and dims == 3:
        raise InputError("field of view fit is for slices; for volumes: native")
    whole = sides if stack is None else [stack, *sides]
    configuration = {
        "inherits_from": base,
        "patch_size": whole,
        "batch_size": batch_size or _scaled_batch(stock, whole),
        "field_of_view": fov,
    }
    words = [f"patch {'x'.join(map(str, whole))}, batch {configuration['batch_size']}"]
    spacing = stock["spacing"]
    if fov == "native":
        return configuration, [*words, f"field of view native: spacing {_mm(spacing)} kept"]
    size = [s * n for s, n in zip(spacing, stock["median_image_size_in_voxels"], strict=True)]
    fitted = max(s / p for s, p in zip(size, sides, strict=True))
    configuration |= {
        "spacing": [fitted, fitted],
        "median_image_size_in_voxels": [s / fitted for s in size],
        "data_identifier": f"{stock['data_identifier']}_fit{side_label(sides)}_{fitted:.4g}mm",
    }
    fit = f"field of view fit: spacing {_mm(spacing)} becomes {_mm([fitted, fitted])}, so that the patch covers a slice"
    return configuration, [*words, fit]


def side_label(patch: Sequence[int]) -> str:
    """`256` for a square patch or a cube, `256x192` for another."""
    return "x".join(map(str, patch)) if len(set(patch)) > 1 else str(patch[0])


def _scaled_batch(stock: dict[str, Any], patch: Sequence[int]) -> int:
    """The stock batch with as many pixels in it, at least 2."""
    return max(2, round(stock["batch_size"] * math.prod(stock["patch_size"]) / math.prod(patch)))


def _mm(spacing: Sequence[float]) -> str:
    return "x".join(f"{s:.3g}" for s in spacing) + " mm"
