"""Rotary positions of DINOv3's training code, which are computed in bfloat16 throughout."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def rotary_table(
    grid: Sequence[int],
    periods: Float[Tensor, " n"],
    stretch: Float[Tensor, "1"] | None = None,
) -> Float[Tensor, "tokens angles"]:
    """Return sines and cosines of the patches' centres, in bfloat16.

    Coordinates go from -1 to 1 along each axis, whatever its length; the angles of the axes follow
    each other, slowest axis first, and are repeated once.

    Source: dinov3/layers/rope_position_encoding.py:57-106; with three axes FlexiCT,
    layers/rope_position_encoding.py:114-258.

    Args:
        grid: patches along each axis.
        periods: of each axis.
        stretch: factor on the coordinates, bfloat16 (pretraining draws it); None: 1.
    """
    exact: dict[str, Any] = {"device": periods.device, "dtype": torch.bfloat16}
    centres = [torch.arange(0.5, side, **exact) / side for side in grid]
    places = torch.stack(torch.meshgrid(*centres, indexing="ij"), dim=-1).flatten(0, -2)
    coordinates = 2.0 * places - 1.0
    if stretch is not None:
        coordinates = coordinates * stretch
    angles = 2 * math.pi * coordinates[:, :, None] / periods.bfloat16()
    angles = angles.flatten(1).tile(2)
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)


class Round(nn.Module):
    """Round queries and keys to bfloat16 before the rotation; timm casts them back after it."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the rounded values."""
        return x.bfloat16()
