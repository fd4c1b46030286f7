"""Folders of predictions and ground truth; silence for the warnings of other packages."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.label_files import write_labels


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    truth = np.zeros((4, 8, 8), int)
    truth[1:3, 1:7, 1:7], truth[1:3, 2:5, 2:5], truth[1:3, 2:4, 2:4] = 2, 1, 3
    old = np.where(truth == 3, 4, truth)
    for name in ("perfect", "v1.2 dots", "missing"):
        write_labels(tmp_path / "truth" / f"{name}.nii.gz", old if name == "perfect" else truth)
    write_labels(tmp_path / "prédictions" / "perfect.nii.gz", truth)
    write_labels(tmp_path / "prédictions" / "v1.2 dots.nii.gz", np.where(truth == 3, 1, truth))
    return tmp_path / "prédictions", tmp_path / "truth"


@pytest.fixture
def third_party_warnings() -> Iterator[None]:
    """Ignore the warnings of the packages that tests compare with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
