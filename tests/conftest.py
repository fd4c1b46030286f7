"""Small data that the tests make themselves, and nnU-Net's folders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.brats import write_small_brats
from helpers.nnunet import DATASET, Run
from nnunet_fm.data.brats import convert_brats
from nnunet_fm.internal.folders import EXT_TRAINER, folder

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

# Two test processes share two cores: threads that wait for each other cost more than they bring.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the commands that the tests start


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("no shared data beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def nnunet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """nnU-Net's folders, under a path with a space and a non-ASCII letter."""
    base = tmp_path_factory.mktemp("nn Ünet")
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    for name in names:
        (base / name).mkdir()
    return {name: str(base / name) for name in names} | {
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
        "PYTHONWARNINGS": "ignore",
        EXT_TRAINER: str(folder("trainers")),
    }


@pytest.fixture(scope="session")
def run(nnunet: dict[str, str]) -> Run:
    """Run a console script of this environment as a user would."""

    def run(
        *words: object, expect: int | None = 0, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        script = Path(sys.executable).parent / str(words[0])
        done = subprocess.run(
            [str(script), *(str(w) for w in words[1:])],
            env=os.environ | nnunet | environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert expect is None or done.returncode == expect, done.stdout[-4000:]
        return done

    return run


@pytest.fixture(scope="session")
def dataset(nnunet: dict[str, str], run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the preprocessed folder of six labelled cases and one unlabelled, by stock nnU-Net."""
    source = tmp_path_factory.mktemp("brats")
    write_small_brats(source, 7, 6)
    convert_brats(source, Path(nnunet["nnUNet_raw"]), 7, "Small", scheme="gli2023")
    run(
        "nnUNetv2_plan_and_preprocess",
        "-d",
        7,
        "-c",
        "2d",
        "-np",
        1,
        "-npfp",
        1,
        "--verify_dataset_integrity",
    )
    return Path(nnunet["nnUNet_preprocessed"]) / DATASET


@pytest.fixture(scope="session")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from helpers.encoder_files import braindino, official

    path = tmp_path_factory.mktemp("weights ü") / "braindino.pth"
    torch.save(braindino(official()), path)
    return path


@pytest.fixture(scope="session")
def planned(dataset: Path, encoder_file: Path, run: Run) -> Path:
    run("nnunet-fm", "plan", "-d", 7, "--encoder", encoder_file, "--patch", 48, "--batch-size", 2)
    run("nnunet-fm", "plan", "-d", 7, "--encoder", "none", "--train-ratio", 0.5)
    return dataset
