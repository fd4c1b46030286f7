"""Crops of volumes and their corruption."""

import numpy as np
import pytest
from scipy.ndimage import label

from nnunet_fm_pretrain.methods.volta3d.corruption import (
    KEPT,
    NOISE,
    ZEROS,
    corrupt,
    patches_to_corrupt,
)
from nnunet_fm_pretrain.methods.volta3d.recipe import (
    CorruptionRecipe,
    IntensityRecipe,
    VolumeViews,
)
from nnunet_fm_pretrain.methods.volta3d.views import (
    VolumeViewMaker,
    changed,
    median_voxel,
    random_cube,
    resized,
)

QUIET = IntensityRecipe()


def ramp(shape: tuple[int, int, int]) -> np.ndarray:
    """A volume of which every axis has a slope of its own."""
    z, y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    return ((4 * z + 2 * y + x) / 7).astype(np.float32)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 2.0)])
def test_boxes_are_cubes_in_mm_of_the_asked_volume(spacing: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)
    shape = (60, 180, 90)
    largest = min(n * mm for n, mm in zip(shape, spacing, strict=True))
    for _ in range(200):
        box = random_cube(shape, spacing, (0.3, 0.6), 0.1, rng)
        assert all(s.start >= 0 and s.stop <= n for s, n in zip(box, shape, strict=True))
        edges = [(s.stop - s.start) * mm for s, mm in zip(box, spacing, strict=True)]
        slack = 1 + max(spacing) / min(edges)  # whole voxels
        assert max(edges) / min(edges) < 1.1 * slack
        share = np.prod(edges) / largest**3
        assert 0.3 / slack**3 / 1.17 < share < 0.6 * slack**3 * 1.17


def test_a_scale_of_one_is_the_largest_cube() -> None:
    box = random_cube((10, 30, 20), (2.0, 1.0, 1.0), (1.0, 1.0), 0.0, np.random.default_rng(0))
    assert [s.stop - s.start for s in box] == [10, 20, 20]


@pytest.mark.parametrize(
    ("shape", "spacing"), [((70, 85, 70), (2.0, 2.0, 2.0)), ((200, 60, 80), (1.0, 3.0, 2.0))]
)
def test_the_size_of_a_voxel_is_that_of_the_crops(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    views, rng = VolumeViews(global_size=48, global_scale=(0.5, 1.0)), np.random.default_rng(0)
    edges = []
    for _ in range(500):
        box = random_cube(shape, spacing, views.global_scale, 0.0, rng)
        edges.append((box[0].stop - box[0].start) * spacing[0] / 48)
    assert median_voxel([shape], [spacing], views) == pytest.approx(np.median(edges), rel=0.02)


def test_resizing_keeps_a_ramp_and_its_axes() -> None:
    small = resized(ramp((16, 16, 16)), 8)
    assert small.shape == (8, 8, 8)
    assert np.allclose(small, ramp((16, 16, 16)).reshape(8, 2, 8, 2, 8, 2).mean((1, 3, 5)))
    mixed = resized(ramp((4, 16, 8)), 8)  # larger, smaller, as it is
    gradients = [np.diff(mixed[2:-2, 2:-2, 2:-2], axis=axis).mean() for axis in range(3)]
    assert gradients[0] > gradients[1] > gradients[2] > 0


def test_exactly_the_share_of_patches_is_replaced_in_blocks() -> None:
    rng = np.random.default_rng(0)
    recipe = CorruptionRecipe(share=0.5, largest_block=0.3)
    sizes = []
    for _ in range(20):
        blocks = patches_to_corrupt((6, 6, 6), recipe, rng)
        assert (blocks != KEPT).sum() == 108
        assert {ZEROS, NOISE} <= set(blocks.ravel())
        parts, count = label(blocks != KEPT)
        sizes.append(np.bincount(parts.ravel())[1:].max())
        assert count < 108
    assert np.mean(sizes) > 8


def test_corruption_replaces_whole_patches_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    crop = ramp((12, 12, 12)) + 2  # unlike any filling
    blocks = patches_to_corrupt((3, 3, 3), CorruptionRecipe(share=0.4), rng)
    voxels = np.kron(blocks, np.ones((4, 4, 4), np.int8))
    result = corrupt(crop, blocks, 4, rng)
    assert np.array_equal(result[voxels == KEPT], crop[voxels == KEPT])
    assert (result[voxels == ZEROS] == 0).all()
    noise = result[voxels == NOISE]
    assert noise.min() >= 0
    assert noise.max() <= 1
    assert abs(noise.mean() - 0.5) < 0.05


def test_intensities_stay_in_their_range_and_the_background_stays_zero() -> None:
    crop = ramp((16, 16, 16))
    crop[:4] = 0
    recipe = IntensityRecipe(gamma=0.4, scale=0.5, noise=0.3, blur=1.0)
    for seed in range(5):
        new = changed(crop, recipe, np.random.default_rng(seed))
        assert new.dtype == np.float32
        assert new.min() >= 0
        assert new.max() <= 1
        assert not new[crop == 0].any()
        assert np.abs(new - crop)[4:].mean() > 0.01
    assert np.array_equal(changed(crop, QUIET, np.random.default_rng(0)), crop)


def test_teacher_and_student_see_the_same_place() -> None:
    views = VolumeViews(global_size=16, local_size=8, flip=1.0, teacher=QUIET, student=QUIET)
    maker = VolumeViewMaker(views, patch=8)
    view = maker.global_view(ramp((20, 24, 24)), (1.0, 1.0, 1.0), np.random.default_rng(0))
    assert np.array_equal(view.teacher, view.student)
    hidden = np.kron(view.hidden, np.ones((8, 8, 8), bool))
    assert np.array_equal(view.corrupted[~hidden], view.student[~hidden])
    assert view.hidden.sum() == 4
    assert np.diff(view.student, axis=2).mean() < 0  # flipped from left to right
    assert np.diff(view.student, axis=1).mean() > 0
    local = maker.local_view(ramp((20, 24, 24)), (1.0, 1.0, 1.0), np.random.default_rng(0))
    assert local.shape == (8, 8, 8)
