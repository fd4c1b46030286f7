"""Label files: whole numbers or nothing."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_fm.data.label_images import read_labels


def write(path: Path, values: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 2, 3, 1])), path)
    return path


def test_values_close_to_whole_numbers_are_rounded(tmp_path: Path) -> None:
    values = np.array([0, 0.9995, 1.0004, 3.9999], np.float32).reshape(4, 1, 1)
    image = read_labels(write(tmp_path / "a.nii", values))
    assert image.labels.ravel().tolist() == [0, 1, 1, 4]
    assert image.labels.shape == (1, 1, 4)
    assert image.spacing == (3, 2, 1)


@pytest.mark.parametrize("value", [1.992, 0.5, np.nan, np.inf, -0.01])
def test_other_values_are_refused_with_file_and_value(value: float, tmp_path: Path) -> None:
    values = np.zeros((4, 3, 2), np.float32)
    values[1, 1, 1] = value
    with pytest.raises(ValueError, match=f"a.nii has 1 voxels that are no label.* {value:g};"):
        read_labels(write(tmp_path / "a.nii", values))


def test_a_fourth_axis_of_one_is_dropped_and_a_longer_one_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "a.nii", np.ones((4, 3, 2, 1), np.float32))
    assert read_labels(one).labels.shape == (2, 3, 4)
    with pytest.raises(ValueError, match=r"b.nii has 4 dimensions"):
        read_labels(write(tmp_path / "b.nii", np.ones((4, 3, 2, 2), np.uint8)))


def test_pictures_and_damaged_files(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.eye(4, dtype=np.uint8)), str(tmp_path / "a.png"))
    image = read_labels(tmp_path / "a.png")
    assert image.labels.shape == (4, 4)
    assert image.spacing == (1, 1)
    colours = sitk.GetImageFromArray(np.zeros((4, 4, 3), np.uint8), isVector=True)
    sitk.WriteImage(colours, str(tmp_path / "b.png"))
    with pytest.raises(ValueError, match="b.png holds colours"):
        read_labels(tmp_path / "b.png")
    (tmp_path / "c.nii").write_text("no image")
    with pytest.raises(ValueError, match="c.nii cannot be read as an image"):
        read_labels(tmp_path / "c.nii")
