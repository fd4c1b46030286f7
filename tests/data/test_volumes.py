from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from helpers.tables import write_volume_file
from nnunet_fm.data.volumes import (
    BadVolumeError,
    check_same_grid,
    read_mask,
    read_volume,
    to_lps,
    voxels_sha256,
)


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_any_orientation_gives_the_same_volume(tmp_path: Path, flips: tuple[int, int, int]) -> None:
    plain = write_volume_file(tmp_path / "plain.nii.gz", 0, (24, 28, 20))
    image = nib.load(plain)
    turned = image.slicer[:: flips[0], :: flips[1], :: flips[2]]
    permuted = turned.as_reoriented(np.array([[2, 1], [0, -1], [1, 1]]))
    nib.save(permuted, tmp_path / "turned.nii.gz")
    first, _ = read_volume(plain)
    second, _ = read_volume(tmp_path / "turned.nii.gz")
    assert np.array_equal(first, second)
    assert (
        first[:, :14].sum() > first[:, 14:].sum()
    )  # brighter in front, which is the upper half of a slice


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda r: r.random((17, 18, 19)) * np.exp(1j), "holds complex numbers"),
        (
            lambda r: np.zeros((17, 18, 19), [("R", "u1"), ("G", "u1"), ("B", "u1")]),
            "holds colour voxels",
        ),
        (lambda r: r.integers(0, 2, (17, 18, 19)), "mask or label map.*only values are 0, 1;"),
        (lambda r: r.integers(0, 2, (17, 18, 19)) * 0.996, "only values are 0, 0.996;"),
        (lambda r: r.integers(0, 20, (17, 18, 19)), "values are 0, 1, 2, 3, 4, 5, ...;"),
    ],
)
def test_what_is_no_image_is_refused_by_its_values(
    values: Callable[[np.random.Generator], np.ndarray], message: str, tmp_path: Path
) -> None:
    array = values(np.random.default_rng(0))
    kind = np.complex64 if array.dtype.kind == "c" else array.dtype
    array = array.astype(np.float32 if array.dtype.kind in "fi" else kind)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "v.nii.gz")
    with pytest.raises(BadVolumeError, match=message):
        read_volume(tmp_path / "v.nii.gz")


def test_an_image_of_few_bits_is_an_image(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 32, (17, 18, 19)).astype(np.uint8)
    nib.save(nib.Nifti1Image(levels, np.eye(4)), tmp_path / "v.nii.gz")
    assert read_volume(tmp_path / "v.nii.gz")[0].max() == 31


def test_huge_volumes_are_refused_by_their_header(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_shape((2000, 2000, 2000))
    header.set_data_dtype(np.uint8)
    with (tmp_path / "huge.nii").open("wb") as stream:
        header["vox_offset"], header["magic"] = 352, b"n+1"
        stream.write(header.binaryblock + b"\0" * 4)
    with pytest.raises(BadVolumeError, match="its header says 2000 x 2000 x 2000 voxels"):
        read_volume(tmp_path / "huge.nii")


@pytest.mark.parametrize("highest", [1000, 1600, 2000, 3968, 4095])
def test_voxels_are_the_same_at_another_scale(highest: int) -> None:
    whole = np.random.default_rng(0).integers(1, highest + 1, (16, 17, 18)).astype(np.float32)
    whole[0, 0, 0], whole[-1, -1, -1] = 0, highest
    hashes = {voxels_sha256(whole * np.float32(scale)) for scale in (1, 0.1, 0.37, 1 / 3)}
    assert len(hashes) == 1
    whole[8, 8, 8] += highest // 2
    assert voxels_sha256(whole) not in hashes


def test_masks_and_images_of_one_session_lie_on_one_grid(tmp_path: Path) -> None:
    image = nib.load(write_volume_file(tmp_path / "v.nii.gz", 0))
    affine = image.affine.copy()
    affine[:3, 3] += 0.5
    moved = nib.Nifti1Image(image.get_fdata(dtype=np.float32), affine)
    check_same_grid([image, image])
    check_same_grid([])
    with pytest.raises(BadVolumeError, match=r"origins 0.866 mm \(0.5 voxels\) apart"):
        check_same_grid([image, moved])
    with pytest.raises(BadVolumeError, match="19 x 24 x 18 voxels against"):
        check_same_grid([image, image.slicer[1:]])
    mask = image.get_fdata(dtype=np.float32) > 0.5
    stored = nib.Nifti1Image(mask[..., None].astype(np.uint8), image.affine)
    turned = nib.squeeze_image(stored).as_reoriented(np.array([[2, 1], [0, -1], [1, 1]]))
    nib.save(turned, tmp_path / "mask.nii.gz")
    lps = to_lps(image)
    expected = lps.get_fdata(dtype=np.float32).transpose(2, 1, 0) > 0.5
    assert np.array_equal(read_mask(tmp_path / "mask.nii.gz", lps), expected)
    nib.save(moved, tmp_path / "mask.nii.gz")
    with pytest.raises(BadVolumeError, match="lies elsewhere"):
        read_mask(tmp_path / "mask.nii.gz", image)
