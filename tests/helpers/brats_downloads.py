"""Made downloads of BraTS: a few voxels with labels, and the command that converts them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from nnunet_fm.cli.main import main

SINCE_2023 = ("-t1n", "-t1c", "-t2w", "-t2f", "-seg")
UNTIL_2021 = ("_t1", "_t1ce", "_t2", "_flair", "_seg")
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_labels(path: Path, labels: Sequence[int] = (), affine: np.ndarray = LPS) -> None:
    """Write an image of 4x4x2 voxels, the first ones with these labels."""
    voxels = np.zeros((4, 4, 2), np.uint8)
    voxels.flat[: len(labels)] = labels
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def write_case(
    folder: Path,
    labels: Sequence[int] | None = None,
    endings: Sequence[str] = SINCE_2023,
    affine: np.ndarray = LPS,
) -> None:
    """Write four images, and a segmentation if there are labels."""
    for ending in endings[:4]:
        write_labels(folder / f"{folder.name}{ending}.nii.gz", (), affine)
    if labels is not None:
        write_labels(folder / f"{folder.name}{endings[4]}.nii.gz", labels, affine)


class Converter:
    """Runs `nnunet-fm convert brats` on a folder of made cases."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.source = folder / "download"
        self.raw = folder / "raw"
        self.raw.mkdir()
        self.capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str]:
        code = main(["convert", "brats", str(self.source), "-d", "5", "-n", "X", *words])
        printed = self.capsys.readouterr()
        return code, printed.out + printed.err

    @property
    def dataset(self) -> Path:
        return self.raw / "Dataset005_X"

    def description(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.dataset / "dataset.json").read_text())
        return content

    def labels(self, case: str) -> list[int]:
        image = nib.load(self.dataset / "labelsTr" / f"{case}.nii.gz")
        return sorted(np.unique(np.asarray(image.dataobj)).tolist())
