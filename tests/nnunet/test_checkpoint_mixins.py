"""Checkpoints inside stock nnU-Net: slim, resumed after a kill, and refused where there is none."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from helpers.nnunet import (
    CONFIGURATION,
    DATASET,
    PLANS,
    TRAINER,
    Run,
    train_words,
)
from nnunet_fm.nnunet.run_record import read_record


def test_final_checkpoint_is_complete_and_the_best_one_slim(trained: Path) -> None:
    contents = {
        p.name: torch.load(p, weights_only=False)["network_weights"]
        for p in (trained / "fold_0").glob("*.pth")
    }
    has_encoder = {name: any(k.startswith("encoder.") for k in c) for name, c in contents.items()}
    assert has_encoder == {"checkpoint_final.pth": True, "checkpoint_best.pth": False}


def test_a_killed_training_continues(planned: Path, nnunet: dict[str, str], run: Run) -> None:
    """Kill -9 in the second epoch, continue with --c, finish; fold 1."""
    words = [
        str(Path(sys.executable).parent / "nnUNetv2_train"),
        *(str(w) for w in train_words(TRAINER, fold=1)[1:]),
    ]
    model = Path(nnunet["nnUNet_results"]) / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}"
    latest = model / "fold_1" / "checkpoint_latest.pth"
    process = subprocess.Popen(
        words,
        env=os.environ | nnunet,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        record = read_record(model / "fold_1")  # written after the checkpoint of the epoch
        if record is not None and record.epochs_done:
            break
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert latest.exists()
    assert not (model / "fold_1" / "checkpoint_final.pth").exists()
    before = read_record(model / "fold_1")  # without the first epoch, if killed before it was added
    said = run(*train_words(TRAINER, fold=1), "--c").stdout
    after = read_record(model / "fold_1")
    assert after.epochs_done == 2
    assert after.epoch_seconds[: before.epochs_done] == before.epoch_seconds
    assert after.versions == before.versions
    assert "Epoch 1" in said
    assert "Epoch 0" not in said
    assert (model / "fold_1" / "checkpoint_final.pth").exists()


def test_continuing_nothing_is_an_error(planned: Path, run: Run, nnunet: dict[str, str]) -> None:
    for words in (
        train_words(TRAINER, fold=2),
        train_words("SubsetTrainerTest", "2d", "FM_none_r050", 2),
    ):
        said = run(*words, "--c", expect=1).stdout
        assert "holds no checkpoint to continue from" in said
    assert not list(Path(nnunet["nnUNet_results"]).rglob("fold_2/*.pth"))
