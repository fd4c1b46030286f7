"""Sweeps are strict, and everything is checked before anything starts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_fm.cli.main import main
from nnunet_fm.data.brats import LABELS
from nnunet_fm.encoders import build_encoder, get_card
from nnunet_fm.experiments.config import Sweep, read_sweep
from nnunet_fm.experiments.datasets import SPLITS, Splits
from nnunet_fm.experiments.runs import plan_sweep
from nnunet_fm.nnunet.commands import trainer_names

SCRIPTS = Path(__file__).parents[2] / "scripts"
SMALL: dict[str, Any] = {
    "datasets": [7],
    "encoders": {"random": {"encoder": "dinov3_test16"}},
    "device": "cpu",
}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [7]", "encoders: Field required"),
        (
            "{datasets: [7], encoders: {a: {}}, ratio: [1]}",
            "unknown key 'ratio'. Did you mean ratios",
        ),
        ("{datasets: [7], encoders: {a: {encodr: x}}}", "unknown key 'encoders.a.encodr'"),
        (
            "{datasets: [7], encoders: {a b: {}}}",
            "encoder name 'a b'; allowed: letters, digits and _",
        ),
        ("{datasets: [7, 7], encoders: {a: {}}}", "datasets names a value twice"),
        ("{datasets: [7], encoders: {a: {}}, ratios: [0.1, 0.1]}", "two runs would be one"),
        (
            "{datasets: [7], encoders: {a: {}}, ratios: [0]}",
            "ratios.0: Input should be greater than 0",
        ),
        ("{datasets: [7], encoders: {a: {}}, gpus: [0], device: cpu}", "gpus .0. with device cpu"),
        ("[1]", "holds a list; allowed: a sweep"),
        ("{datasets: [7], encoders: {a: null}}", "at least 1 item"),
        ("{datasets: [7], encoders: {a: {}}, splits: {file: x, seed: 1}}", "allowed: one of them"),
        ("{datasets: [7, 8], encoders: {a: {}}, splits: {file: x}}", "splits.file with 2 datasets"),
    ],
)
def test_sweeps_are_strict(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_sweep(tmp_path / "s.yaml")


def test_single_keys_can_be_typed(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("{datasets: [7], encoders: {a: {}}}")
    assert (
        read_sweep(tmp_path / "s.yaml", ["ratios=[0.1,1.0]", "encoders.a.trainer=X"])
        .encoders["a"]
        .trainer
        == "X"
    )
    with pytest.raises(FileNotFoundError, match="unknown sweep"):
        read_sweep(tmp_path / "t.yaml")


@pytest.fixture
def folders(
    dataset: Path, nnunet: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, nnunet[name])
    return dataset.parent, Path(nnunet["nnUNet_results"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": [999]}, "no dataset 999 in nnU-Net's folders; there are: Dataset007_Small"),
        ({"encoders": {"a": {"encoder": "dinov3_tset16"}}}, "dinov3_tset16"),
        (
            {"encoders": {"a": {"encoder": "dinov3_test16", "trainer": "FrozenDinoTrainr"}}},
            "Did you mean FrozenDinoTr",
        ),
        (
            {"encoders": {"a": {"encoder": "dinov3_test16", "configuration": "2dd"}}},
            "unknown configuration '2dd'",
        ),
        ({"encoders": {"a": {"encoder": "none", "taps": [1]}}}, "--taps has no meaning"),
        (
            {"expected": {7: {"cases": 1251}}},
            "has 6 labelled cases, the sweep expects 1251; convert it anew",
        ),
        (
            {"expected": {7: {"cases": 6, "labels": ["cavity"]}}},
            "no label 'cavity'; it has background, whole tumor",
        ),
        ({"splits": {"file": "nowhere.json"}}, "nowhere.json does not exist"),
    ],
)
def test_what_does_not_exist_is_told_before_anything_starts(
    changes: dict[str, Any], message: str, folders: tuple[Path, Path]
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        plan_sweep(Sweep.model_validate(SMALL | changes), *folders)


def test_every_run_has_plans_and_a_folder_of_its_own(folders: tuple[Path, Path]) -> None:
    encoders = {
        "a": {"encoder": "dinov3_test16"},
        "b": {"encoder": "dinov3_test16", "seed": 1},
        "stock": {},
    }
    sweep = Sweep.model_validate(
        SMALL | {"encoders": encoders, "ratios": [0.5, 1.0], "seeds": [1, 2], "folds": [0, 1]}
    )
    planned = plan_sweep(sweep, *folders)
    assert len(planned.runs) == 24
    assert (
        len({run.folder for run in planned.runs}) == len({run.name for run in planned.runs}) == 24
    )
    first = planned.runs[0]
    assert first.plans == "SW_a_r050_s1"
    words = [
        "nnUNetv2_train",
        "7",
        "2d_fm256",
        "0",
        "-tr",
        "FrozenDinoTrainer",
        "-p",
        "SW_a_r050_s1",
        "-device",
        "cpu",
    ]
    assert first.command("cpu") == words
    assert planned.runs[-1].command("cpu")[2:6] == ["2d", "1", "-tr", "SubsetTrainer"]
    assert not planned.preprocessing
    fitted = {"encoders": {"c": {"encoder": "dinov3_test16", "patch": [32, 32], "fov": "fit"}}}
    words = plan_sweep(
        Sweep.model_validate(SMALL | fitted | {"ratios": [0.5, 1]}), *folders
    ).preprocessing
    assert [w[0] for w in words] == ["nnUNetv2_preprocess"]  # once for all ratios
    with pytest.raises(ValueError, match="SW_a_r100_s1 exist already, with another encoder of"):
        other = {"encoders": {"a": {"encoder": "dinov3_test16", "seed": 5}}, "seeds": [1]}
        plan_sweep(Sweep.model_validate(SMALL | other), *folders)


@pytest.mark.parametrize("name", ["brats2021", "brats2023_men", "brats2023_mets", "brats2024_goat"])
def test_every_shipped_sweep_is_read_and_its_encoders_are_known(name: str) -> None:
    sweep = read_sweep(name)
    assert len(sweep.encoders) * len(sweep.ratios) == 36
    (expected,) = sweep.expected.values()
    assert set(expected.labels) == set(LABELS) - {"background"}
    assert sweep.splits == Splits()  # nnU-Net's own
    assert len(read_sweep(name, ["encoders.dinov3=null"]).encoders) == 5
    (dataset,) = sweep.datasets
    for words in (f"expected.{dataset}=null", "expected=null"):
        assert read_sweep(name, [words]).expected == {}
    assert read_sweep(name, [f"expected.{dataset}.cases=2"]).expected[dataset].cases == 2
    assert build_encoder(sweep.encoders["random"].encoder).input_spec.spatial_dims == 2
    dinov3 = get_card(sweep.encoders["dinov3"].card or "")
    assert (
        build_encoder(dinov3.architecture, **dinov3.options).vit.num_prefix_tokens == 5
    )  # CLS and four registers
    assert {arm.trainer for arm in sweep.encoders.values()} - {None} <= trainer_names()


def test_folds_are_drawn_as_nnunet_does_or_given_and_never_replaced(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    target = folders[0] / "Dataset007_Small" / SPLITS
    before = target.read_text() if target.is_file() else None
    target.unlink(missing_ok=True)
    try:
        plan_sweep(Sweep.model_validate(SMALL | {"splits": {}}), *folders)
        drawn = json.loads(target.read_text())
        cases = sorted({case for fold in drawn for case in fold["val"]})
        assert drawn == generate_crossval_split(cases, seed=12345, n_splits=5)
        plan_sweep(
            Sweep.model_validate(SMALL | {"splits": {"seed": 12345}}), *folders
        )  # the same ones
        with pytest.raises(ValueError, match=r"other folds than the sweep's \(seed 7, 5 folds\)"):
            plan_sweep(Sweep.model_validate(SMALL | {"splits": {"seed": 7}}), *folders)
        target.unlink()
        own = [{"train": cases[:4], "val": cases[4:]}]
        (tmp_path / "own.json").write_text(json.dumps(own))
        plan_sweep(
            Sweep.model_validate(SMALL | {"splits": {"file": str(tmp_path / "own.json")}}), *folders
        )
        assert json.loads(target.read_text()) == own
        (tmp_path / "own.json").write_text(json.dumps([{"train": ["nobody"], "val": cases}]))
        with pytest.raises(ValueError, match="names nobody, which Dataset007_Small does not have"):
            plan_sweep(
                Sweep.model_validate(SMALL | {"splits": {"file": str(tmp_path / "own.json")}}),
                *folders,
            )
    finally:
        target.unlink(missing_ok=True)
        if before is not None:
            target.write_text(before)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("name", ["data_ratio_sweep.sh", "brats_benchmark.sh"])
def test_the_scripts_say_how_they_are_used(name: str) -> None:
    said = subprocess.run(["bash", SCRIPTS / name], capture_output=True, text=True)
    assert said.returncode == 2
    assert f"scripts/{name} " in said.stderr


def test_the_ratio_script_plans_a_sweep(
    dataset: Path, nnunet: dict[str, str], tmp_path: Path
) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = [
        "bash",
        SCRIPTS / "data_ratio_sweep.sh",
        "7",
        "dinov3_test16",
        "0.5,1.0",
        "device=cpu",
        "--dry-run",
    ]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env=os.environ | nnunet | {"PATH": path},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert "4 new" in done.stdout
    assert "007_frozen_r0.5_s42_f0" in done.stdout
    assert "007_stock_2d_r1_s42_f0" in done.stdout


def test_more_checkpoints_than_disk_are_refused_before_anything_runs(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SMALL))
    words = ["sweep", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "sweep")]
    assert main(words) == 2
    assert "point nnUNet_results to a larger disk" in capsys.readouterr().err
    assert not (tmp_path / "sweep" / "logs").exists()
    assert main([*words, "--dry-run"]) == 0
