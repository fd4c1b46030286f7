"""Planning on what laboratories have: dry runs, impossible sweeps, small data, wrong names."""

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
import yaml

from helpers.catalogue import TRAINERS, catalogue
from helpers.planned_dataset import NAME, Planned, listing, write_planned
from helpers.runs import CASES, DATASET, REGIONS, image, labels, write_run
from nnunet_fm.cli import doctor
from nnunet_fm.cli.main import main
from nnunet_fm.experiments.find_runs import find_runs
from nnunet_fm.experiments.perturbed_predictions import predict_perturbed
from nnunet_fm.experiments.run_scores import score_runs
from nnunet_fm.experiments.runs import Run
from nnunet_fm.internal.device import missing_device
from nnunet_fm.internal.folders import EXT_TRAINER

Said = Callable[..., str]
TINY = {"encoder": "dinov3_test16", "patch": [32, 32]}
SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Planned]:
    """Make a dataset of so many cases, with nnU-Net's folders set and a folder to work in."""

    def make(cases: int) -> Planned:
        planned = write_planned(tmp_path / "nn", cases)
        for name, value in planned.environment.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        return planned

    return make


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a command in this process, check its exit code and return what it printed."""

    def say(*words: object, code: int = 0) -> str:
        try:
            returned = main([str(word) for word in words])
        except SystemExit as stop:  # argparse's
            returned = int(stop.code or 0)
        printed = capsys.readouterr()
        assert returned == code, printed.err
        return printed.out + printed.err

    return say


def sweep_file(**changes: object) -> Path:
    settings = {"datasets": [31], "encoders": {"tiny": TINY}, "device": "cpu"} | changes
    Path("sweep.yaml").write_text(yaml.safe_dump(settings))
    return Path("sweep.yaml")


# ---- a dry run changes nothing on disk ----


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"splits": {}}, []),  # folds that are not drawn yet
        ({"splits": {"folds": 2}, "ratios": [0.5, 1.0]}, ["-o", "another"]),
        ({"encoders": {"fit": TINY | {"fov": "fit"}}}, []),  # data to be preprocessed first
        ({"device": "cuda", "slurm": {"time": 60}}, ["--executor", "slurm"]),
        ({"device": "cuda"}, ["--print"]),
    ],
)
def test_a_dry_run_of_a_sweep_changes_nothing(
    changes: dict[str, object],
    words: list[str],
    made: Callable[[int], Planned],
    said: Said,
    tmp_path: Path,
) -> None:
    made(10)
    file = sweep_file(**changes)
    before = listing(tmp_path)
    shown = said("sweep", file, "--dry-run", *words)
    assert "_r1_s42_f0" in shown or "nnUNetv2_train 31" in shown
    assert listing(tmp_path) == before


def test_a_sweep_that_is_refused_has_written_nothing(
    made: Callable[[int], Planned], said: Said, tmp_path: Path
) -> None:
    made(10)
    last = {"encoder": "dinov3_test16", "patch": [33, 33]}  # checked after the plans of the first
    file = sweep_file(encoders={"tiny": TINY, "last": last}, splits={})
    before = listing(tmp_path)
    assert "multiples of 16" in said("sweep", file, "--print", code=2)
    assert listing(tmp_path) == before


def test_a_dry_run_of_garbage_collection_changes_nothing(said: Said, tmp_path: Path) -> None:
    damaged = tmp_path / "cache" / "encoder-recipe" / "ab" / "abc.safetensors.corrupt"
    damaged.parent.mkdir(parents=True)
    damaged.touch()
    before = listing(tmp_path)
    shown = said("features", "gc", "--cache", tmp_path / "cache", "--dry-run")
    assert "would remove 1 files" in shown
    assert listing(tmp_path) == before


def script(name: str, *words: str) -> str:
    """Run a script with this Python's programs in reach; return what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", SCRIPTS / name, *words],
        env=os.environ | {"PATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_dry_run_of_the_benchmark_script_only_says_what_comes_first(
    made: Callable[[int], Planned], tmp_path: Path
) -> None:
    made(2)
    Path("BraTS").mkdir()
    before = listing(tmp_path)
    shown = script("brats_benchmark.sh", "BraTS", "brats2021", "encoder.pth", "--dry-run")
    assert "would run: nnunet-fm convert brats BraTS -d 21 -n BraTS21" in shown
    assert "would run: nnUNetv2_plan_and_preprocess -d 21 -c 2d 3d_fullres" in shown
    assert listing(tmp_path) == before


# ---- impossible sweeps are refused before anything starts ----


@pytest.mark.parametrize(
    ("cases", "changes", "message"),
    [
        (10, {"device": "cuda"}, "device cuda: this machine has no CUDA GPU"),
        (10, {"device": "mps"}, "device mps: this machine has no Apple GPU"),
        (
            5,
            {"splits": {"folds": 2}, "ratios": [0.1, 0.2, 0.4, 0.6, 0.8, 1.0]},
            "ratios 0.1 and 0.2 are the same 1 of the 2 training cases of fold 0",
        ),
        (10, {"ratios": [0.1, 0.2]}, "are the same 1 of the 8 training cases"),
        (10, {"folds": [5]}, "fold 5 of Dataset031_Made; allowed: 0 to 4"),
        (7, {"folds": [4]}, "fold 4 of Dataset031_Made validates 1 case"),
        (4, {}, "has 4 cases, too few for nnU-Net's 5 folds; type splits.folds=N"),
        (4, {"folds": ["all"]}, "folds.0"),
    ],
)
def test_an_impossible_sweep_is_refused(
    cases: int,
    changes: dict[str, object],
    message: str,
    made: Callable[[int], Planned],
    said: Said,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made(cases)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    file = sweep_file(**changes)
    assert message in said("sweep", file, "--dry-run", code=2)
    assert message in said("sweep", file, code=2)  # before anything is trained
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["sweep.yaml"]


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert missing_device("cuda", [0, 3]) == "no GPU 3; it has 0 to 1"
    assert missing_device("cuda", [0, 1]) == missing_device("cuda") == missing_device("cpu") == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")  # a scheduler's, numbered otherwise
    assert missing_device("cuda", [3, 5]) == ""


def test_perturbed_images_are_not_written_for_a_gpu_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = Run(NAME, "x", 1.0, 1, 0, "T", "P", "2d", tmp_path / "fold_0")
    with pytest.raises(ValueError, match="no CUDA GPU; type -device cpu"):
        predict_perturbed(run, None, ["case"], tmp_path, "cuda")
    assert not list(tmp_path.iterdir())


def test_data_that_were_never_preprocessed_are_said(
    made: Callable[[int], Planned], said: Said
) -> None:
    planned = made(10)
    deep = {"encoder": "volume_test16", "configuration": "3d_fullres", "patch": [32, 32, 32]}
    file = sweep_file(encoders={"deep": deep})
    shown = said("sweep", file, "--dry-run")
    assert (
        "to be preprocessed first: nnUNetv2_preprocess -d 31 -plans_name SW_deep_r100_s42 "
        "-c 3d_fm32" in shown
    )
    (planned.raw / NAME / "dataset.json").unlink()
    refused = said("sweep", file, "--dry-run", code=2)
    assert "3d_fm32 of Dataset031_Made was never preprocessed" in refused
    (planned.raw / "Dataset032_Raw").mkdir()
    refused = said("sweep", file, "--dry-run", "datasets=[32]", code=2)
    assert "Dataset032_Raw is not preprocessed; type: nnUNetv2_plan_and_preprocess -d 32" in refused


def test_the_number_of_training_cases_stands_beside_each_run(
    made: Callable[[int], Planned], said: Said
) -> None:
    made(10)
    shown = said("sweep", sweep_file(ratios=[0.25, 1.0]), "--dry-run")
    assert re.search(r"^run +cases +state", shown, re.MULTILINE)
    assert re.search(r"031_tiny_r0\.25_s42_f0 +2 +new", shown)
    assert re.search(r"031_tiny_r1_s42_f0 +8 +new", shown)


# ---- plans of a training are not overwritten ----


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


# ---- small data and CPUs ----


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


# ---- wrong names ----


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pln", "-d", "31"], "unknown command 'pln'. Did you mean plan"),
        (["features", "extrct"], "unknown command 'extrct'. Did you mean extract"),
        (["sweep", "stauts", "x"], "unknown command 'stauts'. Did you mean status"),
        (["plan", "-d", "31", "--encoder", "none", "-p", "Nope"], "Allowed: nnUNetPlans."),
        (["plan", "-d", "31", "--encoder", "none", "--mix-slices", "2"], "choose from 1, 3, 5"),
        (["plan", "-d", "32", "--encoder", "none"], "-d 32 -c 2d` first"),  # raw alone
        (
            ["plan", "-d", "99", "--encoder", "none"],
            "Made (raw, preprocessed, results), Dataset032_Raw (raw)",
        ),
        (["plan", "-d", "Dataset099_X", "--encoder", "none"], "no dataset Dataset099_X"),
        (["predict", "-tr", "Nope", "-d", "31"], "nnunet-fm has FineTunedDinoTrainer"),
        (["predict", "-tr", "FrozenDinoTrain"], "Did you mean FrozenDinoTrainer"),
        (["predict", "-d", "31", "-c", "2d", "-p", "Nope"], "has -tr FrozenDinoTrainer -p FM_x -c"),
        (
            ["predict", "-d", "31", "-c", "2d_fm32", "-p", "FM_x", "-tr", "FrozenDinoTrainer"],
            "of fold 0, 1, 2, 3, 4; type -f all",
        ),
        (["features", "extract", "t.csv", "--encoder", "x", "--cache", "file"], "file is a file"),
        (["features", "list", "--cache", "file"], "file is a file; allowed: a folder"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones(
    words: list[str], message: str, made: Callable[[int], Planned], said: Said
) -> None:
    planned = made(10)
    (planned.raw / "Dataset032_Raw").mkdir()
    Path("file").touch()
    fold = planned.results / NAME / "FrozenDinoTrainer__FM_x__2d_fm32" / "fold_all"
    fold.mkdir(parents=True)
    (fold / "checkpoint_final.pth").touch()
    (fold.parent / "plans.json").touch()
    assert message in said(*words, code=2)


@pytest.mark.parametrize("name", ["nnUNet_n_proc_DA", "nnUNet_def_n_proc"])
@pytest.mark.parametrize(("value", "level"), [("0", "fail"), ("two", "fail"), ("2", "ok")])
def test_the_doctor_knows_numbers_of_processes_that_break_nnunet(
    name: str, value: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    finding = doctor._check_workers(name)
    assert finding.level == level
    assert (f"export {name}=1" in finding.fix) == (level == "fail")


def test_every_trainer_stands_in_the_documentation_with_its_length() -> None:
    table = (Path(__file__).parents[2] / "docs" / "trainers.md").read_text()
    for name in TRAINERS:
        trainer = getattr(catalogue(), name)
        recipe = getattr(trainer, "recipe", None)
        lengths = (1000, 250)  # nnU-Net's own
        if recipe is not None:
            lengths = (recipe.epochs, recipe.iterations)
        elif trainer.schedule is not None:
            lengths = trainer.schedule[:2]
        assert f"| `{name}` | {lengths[0]} | {lengths[1]} |" in table
