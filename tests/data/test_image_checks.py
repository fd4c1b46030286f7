from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_fm.data.image_checks import check_input_folder


def write(path: Path, array: np.ndarray, spacing: float = 1.0) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((spacing, 1.0, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: (f / "b_0001.nii.gz").unlink(),
            "1 of 2 cases.*b: channels 0000 found, 0000, 0001 needed",
        ),
        (
            lambda f: write(f / "b_0002.nii.gz", np.ones((2, 4, 4))),
            "b: channels 0000, 0001, 0002 found",
        ),
        (
            lambda f: write(f / "b_0001.nii.gz", np.full((2, 4, 4), np.nan)),
            "b: 32 voxels of 0001 are NaN",
        ),
        (lambda f: write(f / "b_0001.nii.gz", np.ones((2, 4, 5))), "b: different grids: size"),
        (
            lambda f: write(f / "b_0001.nii.gz", np.ones((2, 4, 4)), 2.0),
            "b: different grids: spacing",
        ),
        (
            lambda f: (f / "b_0001.nii.gz").write_bytes((f / "a_0001.nii.gz").read_bytes()[:100]),
            "b: unreadable",
        ),
    ],
)
def test_input_folders_are_checked_before_predicting(
    spoil: Callable, message: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for name in ("a_0000", "a_0001", "b_0000", "b_0001"):
        write(tmp_path / f"{name}.nii.gz", rng.random((2, 4, 4)).astype(np.float32))
    check_input_folder(tmp_path, 2, ".nii.gz")
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message):
        check_input_folder(tmp_path, 2, ".nii.gz")


def test_missing_and_empty_input_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_input_folder(tmp_path / "gone", 2, ".nii.gz")
    with pytest.raises(FileNotFoundError, match="CASE_0000"):
        check_input_folder(tmp_path, 2, ".nii.gz")
