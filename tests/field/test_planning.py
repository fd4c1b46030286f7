"""Plans of trained models, small datasets and CPUs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.planned_dataset import NAME, Planned, Said
from helpers.runs import CASES, DATASET, REGIONS, image, labels, write_run
from nnunet_fm.experiments.find_runs import find_runs
from nnunet_fm.experiments.run_scores import score_runs
from nnunet_fm.experiments.runs import Run
from nnunet_fm.internal.folders import EXT_TRAINER


@pytest.mark.parametrize("other", [["--taps", "0,1"], ["--fusion", "fixed"], ["--fov", "fit"]])
@pytest.mark.parametrize("plans_are_there", [True, False])
def test_plans_of_a_training_are_not_overwritten(
    other: list[str], plans_are_there: bool, made: Callable[[int], Planned], said: Said
) -> None:
    planned = made(10)
    words = ["plan", "-d", 31, "--encoder", "dinov3_test16", "--patch", 32, "-o", "FM_x"]
    said(*words)
    plans = planned.dataset / "FM_x.json"
    model = planned.results / NAME / "FrozenDinoTrainer__FM_x__2d_fm32"
    (model / "fold_0").mkdir(parents=True)  # nnU-Net copies the plans when a training begins
    (model / "plans.json").write_text(plans.read_text())
    before = plans.read_text()
    if not plans_are_there:
        plans.unlink()
    assert "-o FM_x_2" in said(*words, *other, code=2)
    assert plans.exists() == plans_are_there
    said(*words)  # the same plans
    assert json.loads(plans.read_text()) == json.loads(before)
    said(*words[:-1], "FM_x_2", *other)


def test_another_plan_by_nnunet_under_a_trained_model_is_refused(
    made: Callable[[int], Planned], said: Said
) -> None:
    planned = made(10)
    words = ["plan", "-d", 31, "--encoder", "dinov3_test16", "--patch", 32, "-o", "FM_x"]
    said(*words)
    model = planned.results / NAME / "FrozenDinoTrainer__FM_x__2d_fm32"
    model.mkdir(parents=True)
    (model / "plans.json").write_text((planned.dataset / "FM_x.json").read_text())
    stock = planned.dataset / "nnUNetPlans.json"
    stock.write_text(stock.read_text().replace('"spacing": [1.0, 1.0]', '"spacing": [2.0, 2.0]'))
    assert "was trained with plans FM_x of another spacing" in said(*words, code=2)


def next_commands(shown: str) -> list[str]:
    """The commands that `plan` prints."""
    return [line.strip() for line in shown.split("next:\n")[1].splitlines()]


@pytest.mark.parametrize(("cases", "fold"), [(1, "all"), (4, "all"), (5, "0"), (10, "0")])
def test_the_next_command_is_one_that_nnunet_accepts(
    cases: int,
    fold: str,
    made: Callable[[int], Planned],
    said: Said,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made(cases)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = ["plan", "-d", 31, "--encoder", "dinov3_test16"]
    (train,) = next_commands(said(*words))
    model = "-tr FrozenDinoTrainer -p FM_dinov3_test16_random"
    assert train == f"nnUNetv2_train 31 2d_fm256 {fold} {model} -device cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert next_commands(said(*words)) == [train.removesuffix(" -device cpu")]


def test_few_cases_with_folds_of_their_own_are_trained_on_these(
    made: Callable[[int], Planned], said: Said
) -> None:
    planned = made(4)
    cases = [f"case{n:02d}" for n in range(4)]
    own = [{"train": cases[:2], "val": cases[2:]}]
    (planned.dataset / "splits_final.json").write_text(json.dumps(own))
    shown = said("plan", "-d", 31, "--encoder", "dinov3_test16", "--train-ratio", "0.5")
    assert "nnUNetv2_train 31 2d_fm256 0 " in shown
    assert "trains on 50 % of the training cases, 1 of 2 in fold 0" in shown


@pytest.mark.parametrize(
    ("words", "batch"),
    [
        ([], 8),  # 39 by nnU-Net's number of pixels
        (["-device", "cuda"], 39),
        (["--batch-size", "20"], 20),
        (["--patch", "64"], 128),
        (["--mix-slices", "3"], 2),
    ],
)
def test_the_batch_is_one_for_the_device(
    words: list[str],
    batch: int,
    made: Callable[[int], Planned],
    said: Said,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planned = made(10)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    request = ["plan", "-d", 31, "--encoder", "dinov3_test16", "-o", "FM_x", *words]
    assert f"batch {batch}" in said(*request)
    before = json.loads((planned.dataset / "FM_x.json").read_text())
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert f"batch {batch}" in said(*request)  # planned again on another machine: the same plans
    assert json.loads((planned.dataset / "FM_x.json").read_text()) == before


@pytest.mark.parametrize(
    ("folds", "flag"),
    [
        (["fold_all"], "-f all"),
        (["fold_0"], "-f 0"),
        (["fold_3"], "-f 3"),
        (["fold_10", "fold_2", "fold_all"], "-f 2 10"),
    ],
)
def test_an_export_names_the_folds_that_it_holds(
    folds: list[str], flag: str, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnunet_fm.nnunet.export.export_model", lambda *_: folds)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    shown = said("export", tmp_path, "a folder")
    command = shown.split("predict with: ")[1].splitlines()[0]
    assert command.endswith(f"{flag} -device cpu")
    assert shlex.split(command)[2] == "a folder"


SHORT = """
from nnunet_fm.nnunet import trainer
from nnunet_fm.nnunet.recipe import Recipe

class FrozenDinoTrainer(trainer.FrozenEncoderTrainer):
    recipe = Recipe(epochs=1, iterations=1, validation_iterations=1)
"""


def test_printed_commands_run_as_printed(
    dataset: Path,
    nnunet: dict[str, str],
    said: Said,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four cases on a CPU: plan, the training that it prints, export, the prediction it prints."""
    folders = {name: tmp_path / name for name in ("nnUNet_preprocessed", "nnUNet_results")}
    small = folders["nnUNet_preprocessed"] / dataset.name
    shutil.copytree(dataset, small, ignore=shutil.ignore_patterns("*00004*", "*00005*"))
    (small / "splits_final.json").unlink(missing_ok=True)  # of another test's training
    facts = json.loads((small / "dataset.json").read_text())
    (small / "dataset.json").write_text(json.dumps(facts | {"numTraining": 4}))
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "short.py").write_text(SHORT)  # under the printed name
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    values = nnunet | folders | {EXT_TRAINER: tmp_path / "trainers", "PATH": path}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    raw = Path(nnunet["nnUNet_raw"]) / dataset.name
    Path("INPUT").mkdir()
    for file in (raw / "imagesTr").glob("*00005*"):
        shutil.copyfile(file, Path("INPUT") / file.name)

    shown = said("plan", "-d", 7, "--encoder", "dinov3_test16", "--patch", 48, "-o", "FM_small")
    (train,) = next_commands(shown)
    assert " all " in train
    assert "4 cases are too few for nnU-Net's 5 folds" in shown
    subprocess.run(train, shell=True, check=True, stdout=subprocess.DEVNULL)
    model = folders["nnUNet_results"] / dataset.name / "FrozenDinoTrainer__FM_small__2d_fm48"
    (found,) = find_runs([model])
    assert (found.fold, found.encoder) == ("all", "FM_small (fold all)")
    (scored,) = score_runs([found], folders["nnUNet_preprocessed"], workers=1)
    assert (len(scored.cases), scored.train_cases) == (4, 4)
    shown = said("export", model, "an export")
    subprocess.run(
        shown.split("predict with: ")[1].splitlines()[0],
        shell=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert len(list(Path("OUTPUT").glob("*.nii.gz"))) == 1


def test_a_report_of_fold_all_says_that_its_cases_were_seen(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results" / DATASET
    results.mkdir(parents=True)
    facts = {
        "labels": {"background": 0, **REGIONS},
        "regions_class_order": [1, 2],
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
    }
    preprocessed = tmp_path / "preprocessed"
    for n, case in enumerate(CASES):
        image(labels(n), preprocessed / DATASET / "gt_segmentations" / f"{case}.nii.gz")
    for place in (results.parent, preprocessed / DATASET):
        (place / "dataset.json").write_text(json.dumps(facts))
    for fold in ("fold_all", "fold_0"):
        model = results / "TheTrainer__FM_x__2d_fm32"
        made = Run(DATASET, "x", 0.5, 1, 0, "TheTrainer", "FM_x", "2d_fm32", model / fold)
        write_run(made, 0)
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed))
    monkeypatch.delenv("nnUNet_raw", raising=False)
    shown = said("report", results, "-o", tmp_path / "report", "-np", 1)
    assert "NOTE: Runs of fold all are scored on all cases" in shown
    table = (tmp_path / "report" / "tables" / f"{DATASET}_dice.md").read_text()
    assert re.search(r"\| 0.5 \| 2 \| FM_x \(fold all\) \|", table)
    assert re.search(r"\| 0.5 \|  \| FM_x \|", table)
