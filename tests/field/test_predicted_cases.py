"""Cases that cannot be predicted are named, and the others predicted."""

from pathlib import Path

import pytest
import torch

from helpers.tables import write_noise_volume
from nnunet_fm.cli.main import main
from nnunet_fm.nnunet.replace_predictor import _command_predictor


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
