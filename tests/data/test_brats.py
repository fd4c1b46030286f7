import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from helpers.brats import write_small_brats
from nnunet_fm.data.brats import convert_brats
from nnunet_fm.data.brats_cases import find_cases
from nnunet_fm.data.synthetic import write_brats

OLD = {"T1": "t1", "T1c": "t1ce", "T2": "t2", "FLAIR": "flair"}
NEW = {"T1": "t1n", "T1c": "t1c", "T2": "t2w", "FLAIR": "t2f"}


def write(path: Path, array: np.ndarray, spacing: float = 1.0) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((spacing, 1.0, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def write_case(
    folder: Path,
    name: str,
    style: str = "new",
    labels: tuple[int, ...] | None = None,
    **damage: str,
) -> None:
    """Write a case of 2x4x4 voxels; `leave_out`, `nan` or `spacing` name a channel to damage."""
    separator, names = ("-", NEW) if style == "new" else ("_", OLD)
    for channel, suffix in names.items():
        if damage.get("leave_out") == channel:
            continue
        array = np.ones((2, 4, 4), np.float32)
        if damage.get("nan") == channel:
            array[0, 0, 0] = np.nan
        write(
            folder / name / f"{name}{separator}{suffix}.nii.gz",
            array,
            2.0 if damage.get("spacing") == channel else 1.0,
        )
    if labels is not None:
        segmentation = np.zeros((2, 4, 4), np.uint8)
        segmentation.flat[: len(labels)] = labels
        write(folder / name / f"{name}{separator}seg.nii.gz", segmentation)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def labels_of(dataset: Path, case: str) -> list[int]:
    image = sitk.ReadImage(str(dataset / "labelsTr" / f"{case}.nii.gz"))
    return sorted(np.unique(sitk.GetArrayFromImage(image)).tolist())


def test_all_years_names_and_both_label_conventions(tmp_path: Path, raw: Path) -> None:
    source = tmp_path / "BraTS ä"
    write_case(source, "BraTS2021_00006", "old", (1, 2, 4))
    write_case(source / "nested", "BraTS-GLI-00001-000", "new", (1, 2, 3))
    write_case(source, "BraTS-MET-1", "new", None)
    for suffix in NEW.values():
        write(source / "plain" / f"{suffix}.nii.gz", np.ones((2, 4, 4), np.float32))
    write(source / "plain" / "seg-model.nii.gz", np.ones((2, 4, 4), np.uint8))
    result = convert_brats(source, raw, 8, "All")
    assert result.training == ["BraTS-GLI-00001-000", "BraTS2021_00006"]
    assert result.test == ["BraTS-MET-1", "plain"]
    assert labels_of(result.folder, "BraTS2021_00006") == [0, 1, 2, 3]
    assert labels_of(result.folder, "BraTS-GLI-00001-000") == [0, 1, 2, 3]
    link = result.folder / "imagesTr" / "BraTS2021_00006_0001.nii.gz"
    assert link.is_symlink()
    assert link.resolve().name == "BraTS2021_00006_t1ce.nii.gz"
    description = json.loads((result.folder / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "T1", "1": "T1c", "2": "T2", "3": "FLAIR"}
    assert description["labels"]["tumor core"] == [1, 3]
    assert description["regions_class_order"] == [2, 1, 3]
    assert description["numTraining"] == 2
    assert description["label_scheme"] == "gli2021"  # its regions cover both
    assert "gli2021" in result.scheme
    assert "gli2023" in result.scheme
    assert result.unused == {"plain": "seg-model.nii.gz"}


def test_unusable_cases_are_listed_and_the_others_converted(tmp_path: Path, raw: Path) -> None:
    source = tmp_path / "brats"
    write_case(source, "good", labels=(1, 3))
    write_case(source, "incomplete", labels=(1,), leave_out="T2")
    write_case(source, "with-nan", labels=(1,), nan="FLAIR")
    write_case(source, "grids", labels=(1,), spacing="T1c")
    write_case(source, "fractions", labels=(1,))
    write(source / "fractions" / "fractions-seg.nii.gz", np.full((2, 4, 4), 1.992, np.float32))
    write_case(source, "twice", labels=(1, 3))
    write_case(source, "twice", "old")
    write_case(source, "strange", labels=(1, 7))
    write_case(source, "broken", labels=(1,))
    (source / "broken" / "broken-t1n.nii.gz").write_bytes(b"not an image")
    write_case(source / "again", "good", labels=(1, 3))
    result = convert_brats(source, raw, 8, "Some", scheme="gli2023")
    assert result.training == ["good"]
    reasons = {k.split(" ")[0]: v for k, v in result.skipped.items()}
    assert reasons["incomplete"] == "incomplete: no T2"
    assert reasons["with-nan"] == "1 voxels of FLAIR are NaN or infinite"
    assert "different grids: " in reasons["grids"]
    assert "no label, the first of value 1.992" in reasons["fractions"]
    assert reasons["strange"] == "label 7 in strange-seg.nii.gz, which no scheme has"
    assert reasons["broken"].startswith("unreadable")
    assert reasons["good"] == "a second case of this name"
    assert len((result.folder / "skipped.csv").read_text().splitlines()) == 1 + len(result.skipped)
    assert not list(result.folder.glob("*/with-nan*"))


def test_copies_and_uncompressed_files(tmp_path: Path, raw: Path) -> None:
    write_case(tmp_path / "b", "case", labels=(1, 3))
    packed = tmp_path / "b" / "case" / "case-t1n.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(packed)), str(packed.with_suffix("")))
    packed.unlink()
    result = convert_brats(tmp_path / "b", raw, 8, "Copy", copy=True, scheme="gli2023")
    written = sorted((result.folder / "imagesTr").iterdir())
    assert len(written) == 4
    assert not any(p.is_symlink() for p in written)
    assert sitk.ReadImage(str(written[0])).GetSize() == (4, 4, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, "X"), ValueError, "1 to 999"),
        ((5, "a b"), ValueError, "letters"),
        ((7, "X"), FileExistsError, "exists already"),
        ((5, "X"), ValueError, "no case below .*incomplete: no T1"),
    ],
)
def test_impossible_conversions(
    arguments: tuple, error: type, message: str, tmp_path: Path
) -> None:
    write_case(tmp_path / "b", "case", labels=(1,), leave_out="T1")
    (tmp_path / "raw" / "Dataset007_Y").mkdir(parents=True)
    with pytest.raises(error, match=message):
        convert_brats(tmp_path / "b", tmp_path / "raw", *arguments, scheme="gli2023")
    assert not (tmp_path / "raw" / "Dataset005_X").exists()


def test_folders_without_brats(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        find_cases(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="holds no file such as"):
        find_cases(tmp_path)


def test_written_cases_are_found_again(tmp_path: Path) -> None:
    write_brats(tmp_path / "b", 2, first_seed=4)
    assert [c.name for c in find_cases(tmp_path / "b")] == ["FMDEMO-00004", "FMDEMO-00005"]
    write_small_brats(tmp_path / "small", 2, 1)
    assert ["seg" in c.files for c in find_cases(tmp_path / "small")] == [True, False]


def test_real_brats_cases_convert(shared_data: Path, raw: Path) -> None:
    result = convert_brats(shared_data / "brats", raw, 8, "Real")
    assert {"BraTS2021_00006", "Brats18_2013_2_1"} <= set(result.training)
    assert len(result.test) == 2
    assert labels_of(result.folder, "BraTS2021_00006") == [0, 1, 2, 3]
