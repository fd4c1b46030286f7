"""Patch, batch and field of view of a configuration."""

import math
from collections.abc import Sequence
from typing import Any

from nnunet_fm.internal.errors import InputError
from nnunet_fm.network.input_size import check_patch


def derive_configuration(
    stock: dict[str, Any],
    base: str,
    patch: Sequence[int],
    step: int,
    fov: str,
    batch_size: int | None,
    stack: int | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Derive a configuration with its own patch, batch and field of view.

    Args:
        stock: the configuration `base`, resolved.
        base: name of the configuration to inherit from.
        patch: one side, or one per dimension, in pixels or voxels.
        step: the sides must be multiples of it.
        fov: `native` keeps the spacing and pads; `fit` (slices only) resamples so that the patch
            covers the median slice, on data that nnU-Net has to preprocess again.
        batch_size: slices, stacks or volumes per step; if None, as many as keep the stock number
            of pixels.
        stack: slices in a 2.5-D patch; None for 2-D and 3-D patches.

    Returns:
        The configuration, and what to report to the user, one line each.

    Raises:
        ValueError: an impossible patch or field of view; the possible ones are named.
    """
    dims = len(stock["patch_size"])
    sides = list(patch) * dims if len(patch) == 1 else list(patch)
    check_patch(sides, step, dims)
    if fov == "fit" and dims == 3:
        raise InputError("field of view fit is for slices; for volumes: native")
    whole_patch = sides if stack is None else [stack, *sides]
    configuration = {
        "inherits_from": base,
        "patch_size": whole_patch,
        "batch_size": batch_size or _scaled_batch(stock, whole_patch),
        "field_of_view": fov,
    }
    if fov == "native":
        spacing = _millimetres(stock["spacing"])
        return configuration, [f"field of view native: spacing {spacing} kept"]
    fitted, line = _fit_median_slice(stock, sides)
    return configuration | fitted, [line]


def _fit_median_slice(stock: dict[str, Any], sides: Sequence[int]) -> tuple[dict[str, Any], str]:
    """Choose the spacing at which the patch covers the median slice."""
    spacing = stock["spacing"]
    shape = stock["median_image_size_in_voxels"]
    size = [s * n for s, n in zip(spacing, shape, strict=True)]  # mm
    fitted = max(s / p for s, p in zip(size, sides, strict=True))
    changes = {
        "spacing": [fitted, fitted],
        "median_image_size_in_voxels": [s / fitted for s in size],
        "data_identifier": f"{stock['data_identifier']}_fit{side_label(sides)}_{fitted:.4g}mm",
    }
    return changes, (
        f"field of view fit: spacing {_millimetres(spacing)} becomes "
        f"{_millimetres([fitted, fitted])}, so that the patch covers a slice"
    )


def side_label(patch: Sequence[int]) -> str:
    """Label a patch: `256` for a square or a cube, `256x192` for others."""
    return "x".join(map(str, patch)) if len(set(patch)) > 1 else str(patch[0])


def _scaled_batch(stock: dict[str, Any], patch: Sequence[int]) -> int:
    """Batch size that keeps the stock number of pixels; at least 2."""
    return max(2, round(stock["batch_size"] * math.prod(stock["patch_size"]) / math.prod(patch)))


def _millimetres(spacing: Sequence[float]) -> str:
    return "x".join(f"{s:.3g}" for s in spacing) + " mm"
