"""Sweeps: a dry run changes nothing on disk, and impossible ones are refused first."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from helpers.planned_dataset import NAME, Planned, Said, listing
from nnunet_fm.experiments.perturbed_predictions import predict_perturbed
from nnunet_fm.experiments.runs import Run
from nnunet_fm.internal.device import missing_device

TINY = {"encoder": "dinov3_test16", "patch": [32, 32]}
SCRIPTS = Path(__file__).parents[2] / "scripts"


def sweep_file(**changes: object) -> Path:
    settings = {"datasets": [31], "encoders": {"tiny": TINY}, "device": "cpu"} | changes
    Path("sweep.yaml").write_text(yaml.safe_dump(settings))
    return Path("sweep.yaml")


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
    assert set(listing(tmp_path)) == set(before)  # the folder of the lock is removed again


def test_a_dry_run_of_garbage_collection_changes_nothing(said: Said, tmp_path: Path) -> None:
    damaged = tmp_path / "cache" / "encoder-recipe" / "ab" / "abc.safetensors.corrupt"
    damaged.parent.mkdir(parents=True)
    damaged.touch()
    before = listing(tmp_path)
    shown = said("features", "gc", "--cache", tmp_path / "cache", "--dry-run")
    assert "would remove 1 file," in shown
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


@pytest.mark.parametrize("flag", ["--dry-run", "--print"])
def test_the_benchmark_script_only_says_what_comes_first(
    flag: str, made: Callable[[int], Planned], tmp_path: Path
) -> None:
    made(2)
    Path("BraTS").mkdir()
    before = listing(tmp_path)
    shown = script("brats_benchmark.sh", "BraTS", "brats2021", "encoder.pth", flag)
    assert "would run: nnunet-fm convert brats BraTS -d 21 -n BraTS21" in shown
    assert "would run: nnUNetv2_plan_and_preprocess -d 21 -c 2d 3d_fullres" in shown
    assert listing(tmp_path) == before


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
        (
            10,
            {"encoders": {"stock": {"trainer": "SubsetTrainerDemo", "patch": [8, 8]}}},
            "patch 8x8: the stock architecture would reduce it to one pixel",
        ),
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
