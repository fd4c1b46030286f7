"""Reports: what a page shows is what was trained and scored."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.runs import CASES, DATASET, REGIONS, image, labels, write_run
from nnunet_fm.data.label_schemes import SCHEME_KEY
from nnunet_fm.experiments.report.cases import _read_labels
from nnunet_fm.data.grids import read_grid


@pytest.mark.parametrize("value", [256, -1, 1.5])
def test_labels_that_a_picture_cannot_show_are_refused(value: float, tmp_path: Path) -> None:
    array = labels(0).astype(np.float32 if value % 1 else np.int16)
    array[array == 2] = value
    file = tmp_path / "a.nii.gz"
    image(array, file)
    with pytest.raises(ValueError, match=r"a\.nii\.gz has .*(pictures show|no label)"):
        _read_labels(file, read_grid(file))
