"""Dice, HD95 and surface Dice against brute force and known values."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from nnunet_fm.evaluation.metrics import dice, hausdorff95, surface_dice

SPACING = (3.0, 1.0, 0.5)


def brute_force_hd95(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    """All distances between all surface voxels."""
    surfaces = []
    for mask in (a, b):
        padded = np.pad(mask, 1)
        inside = padded.copy()
        for axis in range(3):
            for step in (-1, 1):
                inside &= np.roll(padded, step, axis)
        surfaces.append(np.argwhere((padded & ~inside)[1:-1, 1:-1, 1:-1]) * spacing)
    distances = cdist(*surfaces)
    return max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))


@pytest.mark.parametrize("seed", range(5))
def test_hd95_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = [np.zeros((8, 12, 14), bool) for _ in range(2)]
    for mask in masks:
        z, y, x = rng.integers(0, 5), rng.integers(0, 6), rng.integers(0, 7)
        mask[z : z + 3, y : y + 5, x : x + 6] = True
        mask ^= rng.random(mask.shape) > 0.97
    assert hausdorff95(*masks, SPACING) == pytest.approx(brute_force_hd95(*masks, SPACING))


def test_shifted_cubes_have_known_scores() -> None:
    a, b = np.zeros((10, 10, 10), bool), np.zeros((10, 10, 10), bool)
    a[2:6, 2:6, 2:6], b[2:6, 2:6, 4:8] = True, True
    assert dice(a, b) == 0.5
    assert hausdorff95(a, b, (1, 1, 0.5)) == 1.0
    assert dice(a, a) == 1.0
    assert hausdorff95(a, a, SPACING) == 0.0


def test_empty_masks_follow_the_stated_rule() -> None:
    empty, full = np.zeros((155, 240, 240), bool), np.zeros((155, 240, 240), bool)
    full[50, 50, 50] = True
    assert (dice(empty, empty), hausdorff95(empty, empty, (1, 1, 1))) == (1.0, 0.0)
    assert (dice(empty, full), dice(full, empty)) == (0.0, 0.0)
    assert hausdorff95(full, empty, (1, 1, 1)) == pytest.approx(373.13, abs=0.01)  # BraTS' penalty


def test_surface_dice_counts_voxels_within_the_tolerance() -> None:
    a, b = np.zeros((10, 12, 12), bool), np.zeros((10, 12, 12), bool)
    a[2:6, 2:6, 2:6], b[2:6, 2:6, 4:8] = True, True
    assert surface_dice(a, a, (1, 1, 1), 0) == 1.0
    assert surface_dice(a, b, (1, 1, 1), 2) == 1.0
    points = [np.argwhere(m & ~ndimage.binary_erosion(m)) for m in (a, b)]
    distances = cdist(*points)
    near = np.concatenate([distances.min(1), distances.min(0)]) <= 1
    assert surface_dice(a, b, (1, 1, 1), 1) == pytest.approx(near.mean())
    assert 0 < near.mean() < 1
    assert surface_dice(a, b, (1, 1, 0.5), 1) == 1.0  # the shift is 1 mm now
    empty = np.zeros_like(a)
    assert (surface_dice(empty, empty, (1, 1, 1), 1), surface_dice(a, empty, (1, 1, 1), 1)) == (
        1.0,
        0.0,
    )


@pytest.mark.parametrize("other", [np.ones((4, 1), bool), np.ones((3, 4), np.uint8) * 2])
def test_labels_and_other_shapes_are_refused(other: np.ndarray) -> None:
    mask = np.ones((3, 4), bool)
    with pytest.raises((ValueError, TypeError)):  # the tests' own check of shapes comes first
        dice(mask, other)
    with pytest.raises((ValueError, TypeError)):
        hausdorff95(other, mask, (1, 1))
