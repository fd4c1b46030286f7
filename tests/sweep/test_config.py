"""Sweeps are strict, and everything is checked before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from nnunet_fm.encoders import build_encoder
from nnunet_fm.programs import trainer_names
from nnunet_fm.sweep.config import Sweep, read_sweep
from nnunet_fm.sweep.runs import plan_sweep

SMALL: dict[str, Any] = {"datasets": [7], "encoders": {"random": {"encoder": "dinov3_test16"}}, "device": "cpu"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [7]", "encoders: Field required"),
        ("{datasets: [7], encoders: {a: {}}, ratio: [1]}", "unknown key 'ratio'. Did you mean ratios"),
        ("{datasets: [7], encoders: {a: {encodr: x}}}", "unknown key 'encoders.a.encodr'"),
        ("{datasets: [7], encoders: {a b: {}}}", "encoder name 'a b'; allowed: letters, digits and _"),
        ("{datasets: [7, 7], encoders: {a: {}}}", "datasets names a value twice"),
        ("{datasets: [7], encoders: {a: {}}, ratios: [0.1, 0.1]}", "two runs would be one"),
        ("{datasets: [7], encoders: {a: {}}, ratios: [0]}", "ratios.0: Input should be greater than 0"),
        ("{datasets: [7], encoders: {a: {}}, gpus: [0], device: cpu}", "gpus .0. with device cpu"),
        ("[1]", "holds a list; allowed: a sweep"),
    ],
)
def test_sweeps_are_strict(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_sweep(tmp_path / "s.yaml")


def test_single_keys_can_be_typed(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("{datasets: [7], encoders: {a: {}}}")
    assert read_sweep(tmp_path / "s.yaml", ["ratios=[0.1,1.0]", "encoders.a.trainer=X"]).encoders["a"].trainer == "X"
    with pytest.raises(FileNotFoundError, match="unknown sweep"):
        read_sweep(tmp_path / "t.yaml")


@pytest.fixture
def folders(dataset: Path, nnunet: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, nnunet[name])
    return dataset.parent, Path(nnunet["nnUNet_results"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": [999]}, "no dataset 999 in nnU-Net's folders; there are: Dataset007_Small"),
        ({"encoders": {"a": {"encoder": "dinov3_tset16"}}}, "dinov3_tset16"),
        ({"encoders": {"a": {"encoder": "dinov3_test16", "trainer": "FrozenDinoTrainr"}}}, "Did you mean FrozenDinoTr"),
        ({"encoders": {"a": {"encoder": "dinov3_test16", "configuration": "2dd"}}}, "unknown configuration '2dd'"),
        ({"encoders": {"a": {"encoder": "none", "taps": [1]}}}, "--taps has no meaning"),
    ],
)
def test_what_does_not_exist_is_told_before_anything_starts(
    changes: dict[str, Any], message: str, folders: tuple[Path, Path]
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        plan_sweep(Sweep.model_validate(SMALL | changes), *folders)


def test_every_run_has_plans_and_a_folder_of_its_own(folders: tuple[Path, Path]) -> None:
    encoders = {"a": {"encoder": "dinov3_test16"}, "b": {"encoder": "dinov3_test16", "seed": 1}, "stock": {}}
    sweep = Sweep.model_validate(SMALL | {"encoders": encoders, "ratios": [0.5, 1.0], "seeds": [1, 2], "folds": [0, 1]})
    planned = plan_sweep(sweep, *folders)
    assert len(planned.runs) == 24
    assert len({run.folder for run in planned.runs}) == len({run.name for run in planned.runs}) == 24
    first = planned.runs[0]
    assert first.plans == "SW_a_r050_s1"
    words = ["nnUNetv2_train", "7", "2d_fm256", "0", "-tr", "FrozenDinoTrainer", "-p", "SW_a_r050_s1", "-device", "cpu"]
    assert first.command("cpu") == words
    assert planned.runs[-1].command("cpu")[2:6] == ["2d", "1", "-tr", "SubsetTrainer"]
    assert not planned.preprocessing
    fitted = {"encoders": {"c": {"encoder": "dinov3_test16", "patch": [32, 32], "fov": "fit"}}}
    words = plan_sweep(Sweep.model_validate(SMALL | fitted | {"ratios": [0.5, 1]}), *folders).preprocessing
    assert [w[0] for w in words] == ["nnUNetv2_preprocess"]  # once for all ratios
    with pytest.raises(ValueError, match="SW_a_r100_s1 exist already, with another encoder of"):
        other = {"encoders": {"a": {"encoder": "dinov3_test16", "seed": 5}}, "seeds": [1]}
        plan_sweep(Sweep.model_validate(SMALL | other), *folders)


@pytest.mark.parametrize("name", ["brats2021", "brats2023_men", "brats2023_mets", "brats2024_goat"])
def test_every_shipped_sweep_is_read_and_its_encoders_are_known(name: str) -> None:
    sweep = read_sweep(name)
    assert len(sweep.encoders) * len(sweep.ratios) == 24
    assert build_encoder(sweep.encoders["random"].encoder).input_spec.spatial_dims == 2
    assert {arm.trainer for arm in sweep.encoders.values()} - {None} <= trainer_names()
