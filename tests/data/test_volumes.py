import locale
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from helpers.tables import write_volume_file
from nnunet_fm.data.volumes import (
    BadVolumeError,
    check_same_grid,
    preserve_locale,
    read_mask,
    read_volume,
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


def test_a_dicom_series_equals_the_nifti(tmp_path: Path) -> None:
    before = locale.setlocale(locale.LC_ALL)
    path = write_volume_file(tmp_path / "v.nii.gz", 0, (24, 28, 20))
    rounded = nib.load(path)
    nib.save(nib.Nifti1Image(np.round(rounded.get_fdata()).astype(np.int16), rounded.affine), path)
    image = sitk.ReadImage(str(path))
    folder = tmp_path / "series"
    folder.mkdir()
    direction = image.GetDirection()
    for z in range(image.GetSize()[2]):
        one = image[:, :, z]
        one.SetMetaData("0020|000e", "1.2.3")
        one.SetMetaData("0008|0016", "1.2.840.10008.5.1.4.1.1.4")
        one.SetMetaData("0008|0018", f"1.2.3.{z + 1}")
        one.SetMetaData("0020|0037", "\\".join(str(direction[i]) for i in (0, 3, 6, 1, 4, 7)))
        one.SetMetaData(
            "0020|0032", "\\".join(map(str, image.TransformIndexToPhysicalPoint((0, 0, z))))
        )
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{z:03d}.dcm"))
        with preserve_locale():
            writer.Execute(one)
    nifti, _ = read_volume(path)
    dicom, _ = read_volume(folder)
    assert locale.setlocale(locale.LC_ALL) == before
    assert np.allclose(nifti, dicom)
    for number in (7, 8):
        (folder / f"{number:03d}.dcm").unlink()
    with pytest.raises(BadVolumeError, match=r"lacks slices: steps of 1.00 to 3.00 mm"):
        read_volume(folder)


def test_huge_volumes_are_refused_by_their_header(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_shape((2000, 2000, 2000))
    header.set_data_dtype(np.uint8)
    with (tmp_path / "huge.nii").open("wb") as stream:
        header["vox_offset"], header["magic"] = 352, b"n+1"
        stream.write(header.binaryblock + b"\0" * 4)
    with pytest.raises(BadVolumeError, match="over 537 million voxels"):
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
    nib.save(moved, tmp_path / "mask.nii.gz")
    with pytest.raises(BadVolumeError, match="lies elsewhere"):
        read_mask(tmp_path / "mask.nii.gz", image)
