from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_fm.data.image_checks import find_cases


def write(path: Path, array: np.ndarray, spacing: float = 1.0) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((spacing, 1.0, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def complex_numbers(path: Path) -> None:
    values = np.full((4, 4, 2), 1 + 1j, np.complex64)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)


@pytest.mark.parametrize(
    ("spoil", "name", "message"),
    [
        (
            lambda f: (f / "b_0001.nii.gz").unlink(),
            "b",
            "channels 0000 found, 0000, 0001 needed",
        ),
        (
            lambda f: write(f / "b_0002.nii.gz", np.ones((2, 4, 4))),
            "b",
            "channels 0000, 0001, 0002 found",
        ),
        (
            lambda f: write(f / "b_0001.nii.gz", np.full((2, 4, 4), np.nan)),
            "b",
            "32 voxels of 0001 are NaN",
        ),
        (
            lambda f: write(f / "b_0001.nii.gz", np.ones((2, 4, 5))),
            "b",
            "different grids: 5 x 4 x 2 voxels against 4 x 4 x 2 (0001 against 0000)",
        ),
        (
            lambda f: write(f / "b_0001.nii.gz", np.ones((2, 4, 4)), 2.0),
            "b",
            "different grids: voxels of 2 x 1 x 1 mm against 1 x 1 x 1 mm (0001",
        ),
        (
            lambda f: sitk.WriteImage(
                sitk.Flip(sitk.ReadImage(str(f / "b_0001.nii.gz")), (True, False, False), False),
                str(f / "b_0001.nii.gz"),
            ),
            "b",
            "different grids: axes stored as RPS against LPS (0001 against 0000)",
        ),
        (
            lambda f: (f / "b_0001.nii.gz").write_bytes((f / "a_0001.nii.gz").read_bytes()[:100]),
            "b",
            "unreadable",
        ),
        (
            lambda f: [complex_numbers(f / f"b_000{n}.nii.gz") for n in (0, 1)],
            "b",
            "0000 holds complex numbers",
        ),
        (
            lambda f: write(f / "c.nii.gz", np.ones((2, 4, 4))),
            "c.nii.gz",
            "not named CASE_0000.nii.gz",
        ),
        (
            lambda f: write(f / "c_0000.nii", np.ones((2, 4, 4))),
            "c_0000.nii",
            "another file ending than the model's .nii.gz",
        ),
    ],
)
def test_cases_that_cannot_be_used_are_named_and_the_others_found(
    spoil: Callable, name: str, message: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for image in ("a_0000", "a_0001", "b_0000", "b_0001"):
        write(tmp_path / f"{image}.nii.gz", rng.random((2, 4, 4)).astype(np.float32))
    (tmp_path / "._a_0000.nii.gz").write_bytes(b"of a Mac")
    (tmp_path / "notes.txt").touch()
    cases, problems = find_cases(tmp_path, 2, ".nii.gz")
    assert (list(cases), problems) == (["a", "b"], {})
    assert [path.name for path in cases["a"]] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    spoil(tmp_path)
    cases, problems = find_cases(tmp_path, 2, ".nii.gz")
    assert list(cases) == (["a"] if name == "b" else ["a", "b"])
    assert list(problems) == [name]
    assert message in problems[name]


def test_missing_and_empty_input_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_cases(tmp_path / "gone", 2, ".nii.gz")
    with pytest.raises(FileNotFoundError, match="CASE_0000"):
        find_cases(tmp_path, 2, ".nii.gz")
