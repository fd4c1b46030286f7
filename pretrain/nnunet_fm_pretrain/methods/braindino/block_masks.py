"""Block masks: the patches of a global crop that are hidden from the student."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Bool, Int
from lightly.models.utils import random_block_mask_image

from nnunet_fm_pretrain.methods.braindino.recipe import MaskRecipe

SMALLEST_BLOCK = 4  # patches


def block_mask(
    recipe: MaskRecipe, grid: tuple[int, int], rng: np.random.Generator
) -> Bool[np.ndarray, "th tw"]:
    """Draw whether one crop is masked and its block mask; all False for unmasked crops."""
    if rng.random() >= recipe.probability:
        return np.zeros(grid, bool)
    return _blocks(grid, int(grid[0] * grid[1] * rng.uniform(*recipe.ratio)), rng)


def patches_to_hide(
    recipe: MaskRecipe, crops: int, patches: int, rng: np.random.Generator
) -> Int[np.ndarray, " crops"]:
    """Draw how many patches of each crop of a step are hidden, as DINOv3's collate function does.

    Source: dinov3/data/collate.py. There the crops are those of one rank, here those of all ranks,
    so that a step has the same masks for any number of ranks.

    Args:
        recipe: int(probability * crops) crops are masked; their shares are the upper ends of equal
            parts of `ratio`, in random order.
        crops: global crops of the step.
        patches: of a crop.
        rng: random generator.
    """
    masked = int(crops * recipe.probability)
    numbers = np.zeros(crops, np.int64)
    numbers[:masked] = np.linspace(*recipe.ratio, masked + 1)[1:] * patches
    return rng.permutation(numbers)


def exact_block_mask(
    grid: tuple[int, int], masked: int, rng: np.random.Generator
) -> Bool[np.ndarray, "th tw"]:
    """Draw a block mask of exactly `masked` patches; single patches make up what blocks leave."""
    mask = _blocks(grid, masked, rng)
    visible = np.flatnonzero(~mask)
    left = masked - (mask.size - len(visible))
    mask.flat[rng.choice(visible, left, replace=False)] = True
    return mask


def _blocks(
    grid: tuple[int, int], masked: int, rng: np.random.Generator
) -> Bool[np.ndarray, "th tw"]:
    """Draw blocks of at most `masked` patches (lightly's, after DINOv2)."""
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
