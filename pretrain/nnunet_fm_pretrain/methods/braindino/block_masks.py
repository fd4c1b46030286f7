"""Block masks: the patches of a global crop that are hidden from the student."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Bool
from lightly.models.utils import random_block_mask_image

from nnunet_fm_pretrain.methods.braindino.recipe import MaskRecipe

SMALLEST_BLOCK = 4  # patches


def block_mask(
    recipe: MaskRecipe, grid: tuple[int, int], rng: np.random.Generator
) -> Bool[np.ndarray, "th tw"]:
    """Draw the block mask of one crop (lightly's, after DINOv2); all False for unmasked crops."""
    if rng.random() >= recipe.probability:
        return np.zeros(grid, bool)
    masked = int(grid[0] * grid[1] * rng.uniform(*recipe.ratio))
    if masked < 1:
        return np.zeros(grid, bool)
    with _random_seeded(int(rng.integers(2**32))):
        mask: torch.Tensor = random_block_mask_image(
            grid, num_masks=masked, min_num_masks_per_block=min(SMALLEST_BLOCK, masked)
        )
    return mask.numpy()


@contextmanager
def _random_seeded(seed: int) -> Iterator[None]:
    """Seed Python's global generator, from which lightly draws, and restore it afterwards."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
