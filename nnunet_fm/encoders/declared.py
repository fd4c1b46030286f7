"""Compare what a user's encoder declares with what it returns."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nnunet_fm.encoders.contract import Encoder
from nnunet_fm.encoders.registry import build_encoder
from nnunet_fm.internal.errors import InputError


def check_declared(encoder: Encoder, architecture: str, options: Mapping[str, Any]) -> None:
    """Check the maps of an encoder against its `feature_info`; those of this package are tested.

    A copy runs on a tensor of the native size without content, which costs no memory.

    Args:
        encoder: the encoder, as built.
        architecture: its name in the registry.
        options: the options it was built with.

    Raises:
        InputError: another number of maps, or other channels or strides.
    """
    if type(encoder).__module__.startswith("nnunet_fm."):
        return
    spec = encoder.input_spec
    try:
        with torch.device("meta"), torch.no_grad():
            copy = build_encoder(architecture, tuple(encoder.taps) or None, **options).eval()
            maps = copy.features(torch.zeros(1, encoder.in_channels, *spec.native_size))
    except (RuntimeError, ValueError, TypeError):  # it needs values, which this copy has not
        return
    given = [_channels_and_strides(found, spec.native_size) for found in maps]
    declared = [
        (info.channels, (info.stride,) * spec.spatial_dims) for info in encoder.feature_info
    ]
    if given != declared:
        raise InputError(
            f"encoder {architecture} declares {len(declared)} maps in feature_info and gives "
            f"{len(given)}: channels and strides {declared} against {given}, for an input of "
            f"{tuple(spec.native_size)}; correct feature_info or features"
        )


def _channels_and_strides(found: Tensor, size: Sequence[int]) -> tuple[int, tuple[float, ...]]:
    """Return a map's channels, and input pixels per cell along each axis."""
    cells = found.shape[2:]
    strides = tuple(side / count for side, count in zip(size, cells, strict=False))
    return found.shape[1], strides
