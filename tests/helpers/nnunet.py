"""The small dataset that `conftest.py` plans: names, commands, and what they leave."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

DATASET = "Dataset007_Small"
CONFIGURATION, PLANS = "2d_fm48", "FM_braindino"  # of `planned`
TRAINER = "FrozenDinoTrainerTest"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def train_words(
    trainer: str, configuration: str = CONFIGURATION, plans: str = PLANS, fold: object = 0
) -> list[object]:
    """Return the command that trains a fold."""
    return ["nnUNetv2_train", 7, configuration, fold, "-tr", trainer, "-p", plans, "-device", "cpu"]


def log_of(model: Path, fold: int = 0) -> str:
    """Return the training log of a fold."""
    return "".join(p.read_text() for p in sorted((model / f"fold_{fold}").glob("training_log*")))


def predict_words(images: Path, out: Path, *more: object) -> list[object]:
    """Return the flags of a prediction, for stock nnU-Net and for `nnunet-fm predict`."""
    common = [
        "-i",
        images,
        "-o",
        out,
        "-npp",
        1,
        "-nps",
        1,
        "-device",
        "cpu",
        "--disable_progress_bar",
    ]
    return [*common, *more]


def stock_words() -> list[object]:
    """Return the flags that name the trained model."""
    return ["-d", 7, "-c", CONFIGURATION, "-tr", TRAINER, "-p", PLANS, "-f", 0]


def labels_in(out: Path) -> dict[str, np.ndarray]:
    """Read the label images of a folder, by file name."""
    return {
        p.name: sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in sorted(out.glob("*.nii.gz"))
    }
