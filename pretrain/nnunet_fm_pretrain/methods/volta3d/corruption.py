"""Group masked model learning (GMML): blocks of patches are replaced by zeros or noise."""

import numpy as np
from jaxtyping import Float, Int8

from nnunet_fm_pretrain.methods.volta3d.recipe import CorruptionRecipe

KEPT, ZEROS, NOISE = 0, 1, 2  # what becomes of a patch

Blocks = Int8[np.ndarray, "tz ty tx"]


def patches_to_corrupt(
    grid: tuple[int, int, int], recipe: CorruptionRecipe, rng: np.random.Generator
) -> Blocks:
    """Draw blocks of patches until exactly the asked share of the patches is replaced.

    The edges of a block are drawn one by one, from one patch to `largest_block`. Of the last block,
    as many patches are replaced as are missing.

    Args:
        grid: patches along each axis.
        recipe: share, sizes and fillings.
        rng: random generator.

    Returns:
        For each patch what it becomes.
    """
    blocks = np.full(grid, KEPT, np.int8)
    missing = round(recipe.share * blocks.size)
    longest = [max(1, round(recipe.largest_block * n)) for n in grid]
    while missing > 0:
        edges = [int(rng.integers(1, n + 1)) for n in longest]
        starts = [int(rng.integers(n - e + 1)) for n, e in zip(grid, edges, strict=True)]
        box = tuple(slice(s, s + e) for s, e in zip(starts, edges, strict=True))
        filling = NOISE if rng.random() < recipe.noise else ZEROS
        inside = np.zeros(grid, bool)
        inside[box] = True
        new = np.flatnonzero(inside & (blocks == KEPT))[:missing]
        blocks.reshape(-1)[new] = filling
        missing -= len(new)
    return blocks


def corrupt(
    crop: Float[np.ndarray, "z y x"], blocks: Blocks, patch: int, rng: np.random.Generator
) -> Float[np.ndarray, "z y x"]:
    """Replace patches of a crop by zeros, or by noise from 0 to 1.

    Args:
        crop: its sides are the grid of `blocks` times `patch`.
        blocks: what each patch becomes.
        patch: edge of a patch in voxels.
        rng: random generator.
    """
    result = crop.copy()
    for place in np.argwhere(blocks != KEPT):
        box = tuple(slice(start, start + patch) for start in place * patch)
        noisy = blocks[tuple(place)] == NOISE
        result[box] = rng.random((patch,) * 3, dtype=np.float32) if noisy else 0
    return result
