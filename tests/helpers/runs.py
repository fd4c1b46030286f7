"""Runs as nnU-Net leaves them, made without a training."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_fm.evaluation.segmentation import CaseScore
from nnunet_fm.experiments.run_scores import ScoredRun
from nnunet_fm.experiments.runs import Run

DATASET, CASES = "Dataset009_Made_case_ratios", ("a", "b.1", "c", "d")


REGIONS = {"whole": [1, 2], "core": [2]}


SHAPE, SPACING = (8, 20, 24), (1.0, 1.5, 4.0)  # (z, y, x) voxels; mm along x, y, z


ENCODERS = {"good": 0, "stock": 1, "poor": 4}  # voxels that its predictions are shifted by


SMALL_SWEEP: dict[str, Any] = {
    "datasets": [7],
    "encoders": {"random": {"encoder": "dinov3_test16"}},
    "device": "cpu",
}


@dataclass(frozen=True)
class Made:
    """Where everything is."""

    raw: Path
    preprocessed: Path
    results: Path
    sweep: Path
    runs: list[Run]

    @property
    def environment(self) -> dict[str, str]:
        names = {
            "nnUNet_raw": self.raw,
            "nnUNet_preprocessed": self.preprocessed,
            "nnUNet_results": self.results,
        }
        return {k: str(v) for k, v in names.items()}


def image(array: np.ndarray, path: Path) -> None:
    made = sitk.GetImageFromArray(array)
    made.SetSpacing(SPACING)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(made, str(path))


def labels(number: int, shift: int = 0) -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    array[2:6, 4:12, 4 + number : 14 + number] = 1
    array[3:5, 6:10, 6 + number : 10 + number] = 2
    return np.roll(array, shift, 2)


def plans(encoder: str, ratio: float, seed: int) -> dict[str, object]:
    source = {"encoder_source": {"card": "tiny", "seed": 1, "sha256": "0123456789abcdef" * 4}}
    arguments = {} if encoder == "stock" else source
    configuration = {"architecture": {"arch_kwargs": arguments}}
    subset = {"ratio": ratio, "seed": seed, "rule": "nested"}
    return {"configurations": {"2d_fm32": configuration}, "train_subset": subset}


LOG = """2026-01-01 00:00:00.000000: 1,000 parameters, 600 learn (60.00 %)
2026-01-01 00:00:00.000000: versions: nnunet-fm 0.1.0, nnunetv2 2.8.1, torch 2.14.1, timm 1.0.22
2026-01-01 00:00:00.000000: Epoch 0
2026-01-01 00:00:00.000000: Pseudo dice [0.5, 0.7]
2026-01-01 00:00:00.000000: Epoch time: 30.0 s
2026-01-01 00:00:00.000000: peak memory: 2147483648 bytes (process)
"""


def write_run(run: Run, shift: int) -> None:
    model = run.folder.parent
    (run.folder / "validation").mkdir(parents=True)
    (model / "plans.json").write_text(json.dumps(plans(run.encoder, run.ratio, run.seed)))
    shutil.copyfile(model.parents[1] / "dataset.json", model / "dataset.json")
    (run.folder / "debug.json").write_text(
        '{"num_epochs": "1", "device": "cpu", "gpu_name": "None"}'
    )
    (run.folder / "training_log_2026_1_1.txt").write_text(LOG)
    (run.folder / "checkpoint_final.pth").write_bytes(bytes(1000))
    (run.folder / "validation" / "summary.json").write_text('{"foreground_mean": {"Dice": 0.5}}')
    for n, case in enumerate(CASES):
        image(
            labels(n, shift + n % 2 * (run.seed - 1)), run.folder / "validation" / f"{case}.nii.gz"
        )


def scored(encoder: str, seed: int, fold: int, values: dict[str, float]) -> ScoredRun:
    """A run by its Dice alone."""
    run = Run(DATASET, encoder, 1.0, seed, fold, "T", "P", "2d", Path(f"{encoder}_{seed}_{fold}"))
    zeros = dict.fromkeys(("hd95_mm", "surface_dice", "lesion_dice", "lesion_f1"), 0.0)
    counts = dict.fromkeys(
        ("lesions", "lesions_found", "lesions_false", "truth_voxels", "predicted_voxels"), 0
    )
    return ScoredRun(run, [CaseScore(c, "x", d, **zeros, **counts) for c, d in values.items()], 1)


@dataclass(frozen=True)
class Fake(Run):
    """A run whose training is a line of Python."""

    code: str = ""

    def command(self, device: str) -> list[str]:
        return ["python", "-c", f"folder = {str(self.folder)!r}\n{self.code}"]


WRITE = """
import pathlib
p = pathlib.Path(folder); (p / "validation").mkdir(parents=True)
(p / "checkpoint_final.pth").touch()
(p / "validation/summary.json").write_text('{"foreground_mean": {"Dice": 0.5}}')
"""


def fake(folder: Path, number: int, code: str) -> Fake:
    fold = folder / "results" / f"{number}" / "fold_0"
    return Fake("Dataset007_Small", f"e{number}", 1.0, 0, 0, "T", "P", "2d", fold, code=code)
