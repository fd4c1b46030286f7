"""Cases that cannot be predicted are named, and the others predicted."""

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt

from helpers.tables import write_noise_volume
from nnunet_fm.cli.main import main
from nnunet_fm.nnunet.orientations import label_orientations
from nnunet_fm.nnunet.replace_predictor import _command_predictor
from nnunet_fm.nnunet.run_record import RunRecord, write_record


@pytest.mark.parametrize(
    ("spoiled", "reason"),
    [
        ("b", "not named CASE_0000.nii.gz"),
        ("b_0000 copy", "not named CASE_0000.nii.gz"),
        ("b_0001", "channels 0001 found, 0000 needed"),
    ],
)
def test_prediction_names_bad_cases_and_predicts_the_rest(
    spoiled: str, reason: str, tmp_path: Path
) -> None:
    for name in ("a_0000", spoiled, "c_0000"):
        write_noise_volume(tmp_path / f"{name}.nii.gz", 1)
    (tmp_path / "._a_0000.nii.gz").write_bytes(b"of a Mac")
    lines: list[str] = []
    problems: dict[str, str] = {}
    predictor = _command_predictor(lines.append, {}, problems)(device=torch.device("cpu"))
    predictor.dataset_json = {"file_ending": ".nii.gz", "channel_names": {"0": "T1"}}
    inputs, outputs, _ = predictor._manage_input_and_output_lists(str(tmp_path), "out")
    assert [Path(files[0]).name for files in inputs] == ["a_0000.nii.gz", "c_0000.nii.gz"]
    assert outputs == ["out/a", "out/c"]
    assert len(problems) == len(lines) == 1
    assert reason in lines[0]


def test_prediction_of_nothing_but_bad_cases_names_them_all(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_noise_volume(tmp_path / f"{name}.nii.gz", 1)
    predictor = _command_predictor(print, {}, {})(device=torch.device("cpu"))
    predictor.dataset_json = {"file_ending": ".nii.gz", "channel_names": {"0": "T1"}}
    with pytest.raises(ValueError, match=r"no case .* a\.nii\.gz: not named.* b\.nii\.gz: not"):
        predictor._manage_input_and_output_lists(str(tmp_path), "out")


def test_a_prediction_that_is_not_complete_has_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "nnunet_fm.nnunet.replace_predictor.predict_with_arguments",
        lambda argv, **options: {"b.nii.gz": "not named CASE_0000.nii.gz"},
    )
    folder = str(tmp_path)
    assert main(["predict", "-i", folder, "-o", folder, "-m", folder]) == 1
    said = capsys.readouterr().err
    assert "Not predicted, for the reasons above: b.nii.gz. All other cases were predicted." in said


def write_stored(file: Path, orientation: str) -> None:
    """Write a volume whose axes are stored as asked."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for number, (axis, direction) in enumerate(axcodes2ornt(orientation)):
        affine[int(axis), number] = direction
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.float32), affine), file)


@pytest.mark.parametrize(
    ("reader", "mirrored", "refused"),
    [
        ("SimpleITKIO", (0, 1), ["ASR", "PIL"]),
        ("NibabelIO", None, ["ASR", "LPI", "PIL", "RAS"]),
        ("NibabelIOWithReorient", None, []),
    ],
)
def test_images_that_are_stored_otherwise_than_in_the_training_are_named(
    reader: str, mirrored: tuple[int, ...] | None, refused: list[str], tmp_path: Path
) -> None:
    names = ["ASR", "LPI", "LPS", "PIL", "RAS"]
    for name in names:
        write_stored(tmp_path / "in" / f"{name}_0000.nii.gz", name)
    write_stored(tmp_path / "gt_segmentations" / "a.nii.gz", "LPS")
    trained = label_orientations(tmp_path, ["a", "of another machine"], ".nii.gz")
    (tmp_path / "model" / "fold_0").mkdir(parents=True)
    write_record(RunRecord(orientations=trained), tmp_path / "model" / "fold_0")
    lines: list[str] = []
    problems: dict[str, str] = {}
    predictor = _command_predictor(lines.append, {}, problems)(device=torch.device("cpu"))
    predictor.model = tmp_path / "model"
    predictor.dataset_json = {"file_ending": ".nii.gz", "channel_names": {"0": "T1"}}
    predictor.plans_manager = SimpleNamespace(plans={"image_reader_writer": reader})
    predictor.allowed_mirroring_axes = mirrored
    inputs, _, _ = predictor._manage_input_and_output_lists(str(tmp_path / "in"), "out")
    assert sorted(problems) == refused
    assert len(inputs) == len(names) - len(refused)
    assert all("trained on images stored as LPS" in line for line in lines)
