from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tables import write_volume_file
from nnunet_fm.data.perturbations import Perturbation
from nnunet_fm.data.subject_table import Row
from nnunet_fm.features import FeatureRecipe
from nnunet_fm.features.volume_loader import VolumeRef, iter_preprocessed


def recipe(**changes: Any) -> FeatureRecipe:
    preprocessing = {"shape": [6, 16, 16], "percentiles": [0.5, 99.5], "strip": "none"}
    return FeatureRecipe("e", "ab" * 32, "a", {}, (0,), "float32", preprocessing, **changes)


@pytest.mark.parametrize("processes", [0, 1])
def test_volumes_are_loaded_in_order_and_bad_ones_have_a_reason(
    tmp_path: Path, processes: int
) -> None:
    (tmp_path / "bad.nii.gz").write_text("text")
    write_volume_file(tmp_path / "good.nii.gz", 0)
    rows = [Row(name, "", "", {"T1": tmp_path / f"{name}.nii.gz"}) for name in ("bad", "good")]
    references = {row.subject: VolumeRef(row, "T1") for row in rows}
    (first, reason), (second, volume) = iter_preprocessed(references, recipe(), processes)
    assert (first, second) == ("bad", "good")
    assert "not a readable NIfTI" in str(reason)
    assert isinstance(volume, np.ndarray)
    assert (volume.shape, volume.dtype) == ((6, 16, 16), np.float16)


def test_perturbations_are_applied_before_preprocessing(tmp_path: Path) -> None:
    row = Row("s", "", "", {"T1": write_volume_file(tmp_path / "v.nii.gz", 0)})
    references = {"key": VolumeRef(row, "T1")}
    ((_, clean),) = iter_preprocessed(references, recipe(), 0)
    change = Perturbation("gamma", 2.0).to_dict()
    ((_, perturbed),) = iter_preprocessed(references, recipe(perturbation=change), 0)
    assert not np.array_equal(clean, perturbed)
