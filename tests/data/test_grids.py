"""Grids of images: the same voxels in another order, and other voxels."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from helpers.stored_volumes import affine_of, write_stored
from nnunet_fm.data.grids import (
    Grid,
    grid_difference,
    grid_offset,
    read_grid,
    reorient,
    stacking_problem,
)

SHAPE = (4, 5, 6)


def test_every_order_and_flip_of_the_axes_is_undone(tmp_path: Path) -> None:
    labels = np.arange(120, dtype=np.uint8).reshape(SHAPE)
    affine = affine_of((0.5, 1.0, 3.0), (-20, 30, 7), 40.0)
    plain = write_stored(tmp_path / "plain.nii", labels, affine)
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            stored = write_stored(tmp_path / "stored.nii", labels, affine, order, flips)
            array = sitk.GetArrayFromImage(sitk.ReadImage(str(stored)))
            assert grid_difference(read_grid(stored), read_grid(plain)) == ""
            turned = reorient(array, read_grid(stored), read_grid(plain))
            assert np.array_equal(turned, labels.T)


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        (SHAPE, affine_of(degrees=5.0), "axes turned by 5.0 degrees"),
        (SHAPE, affine_of((1, 1, 2)), "voxels of 1 x 1 x 2 mm against 1 x 1 x 1 mm"),
        ((4, 5, 7), affine_of(), "4 x 5 x 7 voxels against 4 x 5 x 6"),
        (SHAPE, affine_of(origin=(100, 0, 0)), "origins 100 mm (100 voxels) apart"),
        (SHAPE, np.diag([-1.0, 1, 1, 1]), "origins 3 mm (3 voxels) apart"),
    ],
)
def test_other_places_are_described_with_numbers(
    shape: tuple[int, int, int], affine: np.ndarray, message: str
) -> None:
    difference = grid_difference(Grid(shape, affine), Grid(SHAPE, affine_of()))
    assert message in difference


def test_rounding_in_headers_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    affine = affine_of((0.9375, 0.9375, 1.2), (-110, 95.3, 60), 12.0)
    for _ in range(20):
        noisy = affine.copy()
        noisy[:3] += rng.uniform(-5e-4, 5e-4, (3, 4))
        assert grid_difference(Grid((256, 256, 150), noisy), Grid((256, 256, 150), affine)) == ""


def test_the_distance_at_which_grids_differ_is_given() -> None:
    moved = Grid(SHAPE, affine_of(origin=(0.5, 0, 0)))
    plain = Grid(SHAPE, affine_of())
    assert grid_offset(moved, plain) == pytest.approx(0.5)
    assert grid_difference(moved, plain) == ""
    assert "0.5 voxels" in grid_difference(moved, plain, 0.1)
    far = Grid(SHAPE, affine_of(origin=(1e4, 0, 0)))
    assert grid_difference(far, plain, float("inf")) == ""


def test_images_are_stacked_only_as_they_are_stored() -> None:
    plain = Grid(SHAPE, affine_of())
    assert stacking_problem(Grid(SHAPE, affine_of(origin=(0.004, 0, 0))), plain) == ""
    assert "0.5 voxels" in stacking_problem(Grid(SHAPE, affine_of(origin=(0.5, 0, 0))), plain)
    flipped = affine_of(origin=(3, 0, 0)) @ np.diag([-1.0, 1, 1, 1])
    assert stacking_problem(Grid(SHAPE, flipped), plain) == "axes stored as LAS against RAS"


def test_a_header_without_an_orientation_is_not_turned_by_guess(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    bare = nib.Nifti1Image(labels, None)
    bare.set_qform(None, 0)
    bare.set_sform(None, 0)
    nib.save(bare, tmp_path / "bare.nii")
    unknown = read_grid(tmp_path / "bare.nii")
    ras = read_grid(write_stored(tmp_path / "ras.nii", labels, affine_of()))
    lps = read_grid(write_stored(tmp_path / "lps.nii", labels, np.diag([-1.0, -1, 1, 1])))
    assert "no orientation" in grid_difference(unknown, ras, float("inf"))
    assert grid_difference(unknown, lps) == grid_difference(unknown, unknown) == ""


def test_a_header_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="says nothing about the place"):
        Grid(SHAPE, np.zeros((4, 4)))
