"""Masking of PRISM: blocks of a crop are replaced by noise or by another scan."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from nnunet_fm_pretrain.methods.prism.recipe import MaskingRecipe

Cube = Float[np.ndarray, "s s s"]


class Masked(NamedTuple):
    """A crop with blocks replaced.

    Attributes:
        voxels: of the crop.
        hidden: which of them were replaced.
    """

    voxels: Cube
    hidden: Bool[np.ndarray, "s s s"]


def mask_blocks(crop: Cube, other: Cube, recipe: MaskingRecipe, rng: np.random.Generator) -> Masked:
    """Replace random blocks until the asked share of the voxels is replaced.

    The edges of a block are drawn one by one. Noise is uniform between the crop's extremes.

    Args:
        crop: z-scores.
        other: crop of another scan, which blocks may show.
        recipe: share, edges and fillings.
        rng: random generator.
    """
    side = len(crop)
    voxels, hidden = crop.copy(), np.zeros(crop.shape, bool)
    shortest, longest = (max(1, round(share * side)) for share in recipe.edges)
    low, high = float(crop.min()), float(crop.max())
    wanted = recipe.share * crop.size
    while np.count_nonzero(hidden) < wanted:
        edges = rng.integers(shortest, longest + 1, 3)
        starts = [int(rng.integers(side - edge + 1)) for edge in edges]
        box = tuple(slice(s, s + int(e)) for s, e in zip(starts, edges, strict=True))
        if rng.random() < recipe.swap:
            voxels[box] = other[box]
        else:
            noise = rng.random(voxels[box].shape, dtype=np.float32)
            voxels[box] = low + (high - low) * noise
        hidden[box] = True
    return Masked(voxels, hidden)
