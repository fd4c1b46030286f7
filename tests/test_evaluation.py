"""Dice, HD95 and the tables."""

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.distance import cdist

from nnunet_fm.evaluation import dice, evaluate_folders, hausdorff95, markdown_table, write_csv
from nnunet_fm.evaluation.segmentations import BRATS_REGIONS, Region, regions_of

SPACING = (3.0, 1.0, 0.5)


def brute_force_hd95(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    """All distances between all surface voxels."""
    surfaces = []
    for mask in (a, b):
        padded = np.pad(mask, 1)
        inside = padded.copy()
        for axis in range(3):
            for step in (-1, 1):
                inside &= np.roll(padded, step, axis)
        surfaces.append(np.argwhere((padded & ~inside)[1:-1, 1:-1, 1:-1]) * spacing)
    distances = cdist(*surfaces)
    return max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))


@pytest.mark.parametrize("seed", range(5))
def test_hd95_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = [np.zeros((8, 12, 14), bool) for _ in range(2)]
    for mask in masks:
        z, y, x = rng.integers(0, 5), rng.integers(0, 6), rng.integers(0, 7)
        mask[z : z + 3, y : y + 5, x : x + 6] = True
        mask ^= rng.random(mask.shape) > 0.97
    assert hausdorff95(*masks, SPACING) == pytest.approx(brute_force_hd95(*masks, SPACING))


def test_shifted_cubes_have_known_scores() -> None:
    a, b = np.zeros((10, 10, 10), bool), np.zeros((10, 10, 10), bool)
    a[2:6, 2:6, 2:6], b[2:6, 2:6, 4:8] = True, True
    assert dice(a, b) == 0.5
    assert hausdorff95(a, b, (1, 1, 0.5)) == 1.0
    assert dice(a, a) == 1.0
    assert hausdorff95(a, a, SPACING) == 0.0


def test_empty_masks_follow_the_stated_rule() -> None:
    empty, full = np.zeros((155, 240, 240), bool), np.zeros((155, 240, 240), bool)
    full[50, 50, 50] = True
    assert (dice(empty, empty), hausdorff95(empty, empty, (1, 1, 1))) == (1.0, 0.0)
    assert (dice(empty, full), dice(full, empty)) == (0.0, 0.0)
    assert hausdorff95(full, empty, (1, 1, 1)) == pytest.approx(373.13, abs=0.01)  # BraTS' penalty


def write(path: Path, labels: np.ndarray) -> None:
    image = sitk.GetImageFromArray(labels.astype(np.uint8))
    image.SetSpacing(tuple(reversed(SPACING)))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    truth = np.zeros((4, 8, 8), int)
    truth[1:3, 1:7, 1:7], truth[1:3, 2:5, 2:5], truth[1:3, 2:4, 2:4] = 2, 1, 3
    old = np.where(truth == 3, 4, truth)
    for name in ("perfect", "v1.2 dots", "missing"):
        write(tmp_path / "truth" / f"{name}.nii.gz", old if name == "perfect" else truth)
    write(tmp_path / "prédictions" / "perfect.nii.gz", truth)
    write(tmp_path / "prédictions" / "v1.2 dots.nii.gz", np.where(truth == 3, 1, truth))
    return tmp_path / "prédictions", tmp_path / "truth"


def test_regions_cases_and_missing_predictions(folders: tuple[Path, Path], tmp_path: Path) -> None:
    scores = evaluate_folders(*folders, BRATS_REGIONS)
    found = {(s.case, s.region): (s.dice, s.status) for s in scores}
    assert found["perfect", "ET"] == (1.0, "ok")  # labels {0,1,2,4} and {0,1,2,3} mean the same
    assert found["v1.2 dots", "TC"] == (1.0, "ok")
    assert found["v1.2 dots", "ET"] == (0.0, "ok")
    assert found["missing", "WT"] == (0.0, "missing")
    write_csv(scores, tmp_path / "out" / "scores.csv")
    with (tmp_path / "out" / "scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 9
    table = markdown_table(scores)
    assert f"| ET | 3 | {1 / 3:.4f} ± {np.std([1, 0, 0], ddof=1):.4f} |" in table
    assert "One empty or no prediction" in table


def test_a_resection_cavity_is_not_taken_for_enhancing_tumour(folders: tuple[Path, Path]) -> None:
    write(folders[1] / "perfect.nii.gz", np.arange(4 * 8 * 8).reshape(4, 8, 8) % 5)
    with pytest.raises(ValueError, match="resection cavity"):
        evaluate_folders(*folders, BRATS_REGIONS)


def test_other_grids_and_other_folders_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    write(folders[0] / "perfect.nii.gz", np.zeros((4, 8, 9)))
    with pytest.raises(ValueError, match="one grid"):
        evaluate_folders(*folders, BRATS_REGIONS)
    with pytest.raises(FileNotFoundError, match="no folder"):
        evaluate_folders(tmp_path / "gone", folders[1], BRATS_REGIONS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no \*\.nii\.gz"):
        evaluate_folders(folders[0], tmp_path / "empty", BRATS_REGIONS)
    with pytest.raises(FileNotFoundError, match="no prediction for any"):
        evaluate_folders(tmp_path / "empty", folders[1], BRATS_REGIONS)


def test_regions_come_from_the_dataset(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text('{"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}}')
    assert regions_of(path) == (Region("whole", (1, 2)), Region("core", (2,)))
