from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
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
    references = {row.subject: VolumeRef(row, ("T1",)) for row in rows}
    (first, reason), (second, volume) = iter_preprocessed(references, recipe(), processes)
    assert (first, second) == ("bad", "good")
    assert "not a readable NIfTI" in str(reason)
    assert isinstance(volume, np.ndarray)
    assert (volume.shape, volume.dtype) == ((6, 16, 16), np.float16)


def test_perturbations_are_applied_before_preprocessing(tmp_path: Path) -> None:
    row = Row("s", "", "", {"T1": write_volume_file(tmp_path / "v.nii.gz", 0)})
    references = {"key": VolumeRef(row, ("T1",))}
    ((_, clean),) = iter_preprocessed(references, recipe(), 0)
    change = Perturbation("gamma", 2.0).to_dict()
    ((_, perturbed),) = iter_preprocessed(references, recipe(perturbation=change), 0)
    assert not np.array_equal(clean, perturbed)


def test_volumes_at_a_spacing_have_the_size_of_their_own_voxels(tmp_path: Path) -> None:
    values = np.zeros((20, 24, 28), np.float32)  # x, y, z
    values[4:-4, 4:-4, 4:-4] = 1 + np.random.default_rng(0).random((12, 16, 20))
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0])), tmp_path / "v.nii.gz")
    references = {"key": VolumeRef(Row("s", "", "", {"T1": tmp_path / "v.nii.gz"}), ("T1",))}
    settings = {"shape": [32, 16, 8], "percentiles": [0.5, 99.5], "strip": "none"}
    at_2mm = replace(recipe(), preprocessing={**settings, "spacing": [2.0, 2.0, 2.0]})
    ((_, volume),) = iter_preprocessed(references, at_2mm, 0)
    assert isinstance(volume, np.ndarray)
    inside = np.argwhere(volume != 0)
    assert (inside.max(0) - inside.min(0) + 1).tolist() == [30, 16, 6]  # 60 x 32 x 12 mm
    too_small = replace(at_2mm, preprocessing={**at_2mm.preprocessing, "shape": [24, 16, 8]})
    ((_, reason),) = iter_preprocessed(references, too_small, 0)
    assert "the brain has 30x16x6 voxels (z, y, x) of 2x2x2 mm, more than the shape 24x16x8" in str(
        reason
    )
    assert at_2mm.identity() != replace(recipe(), preprocessing=settings).identity()
