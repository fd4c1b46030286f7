"""Dice, HD95 and the tables."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial.distance import cdist

from nnunet_fm.evaluation import dice, evaluate_folders, hausdorff95, scores_table, write_csv
from nnunet_fm.evaluation.brats_evaluate import official_scores
from nnunet_fm.evaluation.lesions import lesion_score
from nnunet_fm.evaluation.metrics import surface_dice
from nnunet_fm.evaluation.segmentation import (
    BRATS_REGIONS,
    Labelling,
    Region,
    Rules,
    mean_of_regions,
)

SPACING = (3.0, 1.0, 0.5)
BRATS = Labelling(BRATS_REGIONS)


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
    scores = evaluate_folders(*folders, BRATS)
    found = {(s.case, s.region): (s.dice, s.status) for s in scores}
    assert found["perfect", "ET"] == (1.0, "ok")  # labels {0,1,2,4} and {0,1,2,3} mean the same
    assert found["v1.2 dots", "TC"] == (1.0, "ok")
    assert found["v1.2 dots", "ET"] == (0.0, "ok")
    assert found["missing", "WT"] == (0.0, "missing")
    write_csv(scores, tmp_path / "out" / "scores.csv")
    with (tmp_path / "out" / "scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 9
    table = scores_table(scores)
    assert f"| ET | 3 | {1 / 3:.4f} ± {np.std([1, 0, 0], ddof=1):.4f} |" in table
    assert "One empty or no prediction" in table


def test_a_resection_cavity_is_not_taken_for_enhancing_tumour(folders: tuple[Path, Path]) -> None:
    write(folders[1] / "perfect.nii.gz", np.arange(4 * 8 * 8).reshape(4, 8, 8) % 5)
    with pytest.raises(ValueError, match="resection cavity"):
        evaluate_folders(*folders, BRATS)


def test_other_grids_and_other_folders_are_refused(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    write(folders[0] / "perfect.nii.gz", np.zeros((4, 8, 9)))
    with pytest.raises(ValueError, match="one grid"):
        evaluate_folders(*folders, BRATS)
    with pytest.raises(FileNotFoundError, match="no folder"):
        evaluate_folders(tmp_path / "gone", folders[1], BRATS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no \*\.nii\.gz"):
        evaluate_folders(folders[0], tmp_path / "empty", BRATS)
    with pytest.raises(FileNotFoundError, match="no prediction for any"):
        evaluate_folders(tmp_path / "empty", folders[1], BRATS)


def test_regions_come_from_the_dataset(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text('{"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}}')
    assert Labelling.read(path) == Labelling(
        (Region("whole", (1, 2)), Region("core", (2,))), ignore=3
    )


def test_surface_dice_counts_voxels_within_the_tolerance() -> None:
    a, b = np.zeros((10, 12, 12), bool), np.zeros((10, 12, 12), bool)
    a[2:6, 2:6, 2:6], b[2:6, 2:6, 4:8] = True, True
    assert surface_dice(a, a, (1, 1, 1), 0) == 1.0
    assert surface_dice(a, b, (1, 1, 1), 2) == 1.0
    points = [np.argwhere(m & ~ndimage.binary_erosion(m)) for m in (a, b)]
    distances = cdist(*points)
    near = np.concatenate([distances.min(1), distances.min(0)]) <= 1
    assert surface_dice(a, b, (1, 1, 1), 1) == pytest.approx(near.mean())
    assert 0 < near.mean() < 1
    assert surface_dice(a, b, (1, 1, 0.5), 1) == 1.0  # the shift is 1 mm now
    empty = np.zeros_like(a)
    assert (surface_dice(empty, empty, (1, 1, 1), 1), surface_dice(a, empty, (1, 1, 1), 1)) == (
        1.0,
        0.0,
    )


def boxes(*places: tuple[int, int]) -> np.ndarray:
    """Cubes of a size at a place on the diagonal."""
    mask = np.zeros((40, 40, 40), bool)
    for start, size in places:
        mask[(slice(start, start + size),) * 3] = True
    return mask


def test_lesions_found_missed_false_and_small() -> None:
    truth = boxes((1, 4), (10, 4), (20, 2))
    prediction = boxes((1, 4), (30, 4), (36, 2))
    found = lesion_score(
        prediction, truth, (1, 1, 1), smallest=10
    )  # 8 mm³ do not count, on either side
    assert (found.lesions, found.found, found.false) == (2, 1, 1)
    assert found.dice == pytest.approx(1 / 3)
    assert found.f1 == pytest.approx(2 / 4)
    every = lesion_score(prediction, truth, (1, 1, 1), smallest=0)
    assert (every.lesions, every.found, every.false) == (3, 1, 2)
    assert lesion_score(prediction, truth, (2, 2, 2), smallest=64).lesions == 3  # mm³, not voxels


def test_a_prediction_that_joins_lesions_counts_for_each_of_them() -> None:
    truth, prediction = boxes((1, 4), (8, 4)), boxes((1, 11))
    found = lesion_score(prediction, truth, (1, 1, 1), smallest=0)
    assert (found.lesions, found.found, found.false) == (2, 2, 0)
    assert found.dice == pytest.approx(2 * 64 / (64 + 11**3))


def test_small_true_lesions_excuse_what_touches_them() -> None:
    found = lesion_score(boxes((20, 4)), boxes((20, 2)), (1, 1, 1), smallest=10)
    assert (found.lesions, found.found, found.false, found.dice, found.f1) == (0, 0, 0, 1.0, 1.0)


def test_given_cases_only_and_rules(folders: tuple[Path, Path]) -> None:
    scores = evaluate_folders(*folders, BRATS, cases=["perfect"])
    assert {s.case for s in scores} == {"perfect"}
    with pytest.raises(FileNotFoundError, match="no ground truth of nobody"):
        evaluate_folders(*folders, BRATS, cases=["nobody"])
    with pytest.raises(ValueError, match="0 or more"):
        Rules(tolerance_mm=-1)
    (missing,) = (
        s for s in evaluate_folders(*folders, BRATS) if (s.case, s.region) == ("missing", "WT")
    )
    assert (missing.surface_dice, missing.lesion_dice, missing.lesions, missing.lesions_found) == (
        0.0,
        0.0,
        1,
        0,
    )


def test_regions_are_averaged_case_by_case(folders: tuple[Path, Path]) -> None:
    scores = evaluate_folders(*folders, BRATS)
    (dots,) = (s for s in mean_of_regions(scores) if s.case == "v1.2 dots")
    assert dots.dice == pytest.approx(np.mean([s.dice for s in scores if s.case == "v1.2 dots"]))
    assert dots.lesions == sum(s.lesions for s in scores if s.case == "v1.2 dots")


FAKE_TOOL = """#!{python}
import json, pathlib, sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
files = sorted(pathlib.Path(words["--ref_path"]).iterdir())
assert all((pathlib.Path(words["--pred_path"]) / f.name).is_file() for f in files)
found = {{"wt": {{"n_ref_instances": 2, "tp": 1, "fn": 1, "sq_dsc": 0.9, "global_bin_hd95": float("inf")}}}}
metrics = [{{"subject_name": f.name, **found}} for f in files]
if {broken}:
    metrics[0] = {{"subject_name": files[0].name, "error": "shapes"}}
pathlib.Path(words["--summary_json"]).write_text(json.dumps({{"metrics": metrics, "missings": []}}))
"""


@pytest.fixture
def one_mm(tmp_path: Path) -> tuple[Path, Path]:
    for folder in ("p", "t"):
        for case in ("A", "B 2"):
            image = sitk.GetImageFromArray(np.ones((4, 5, 6), np.uint8))
            (tmp_path / folder).mkdir(exist_ok=True)
            sitk.WriteImage(image, str(tmp_path / folder / f"{case}.nii.gz"))
    return tmp_path / "p", tmp_path / "t"


def tool(folder: Path, broken: bool = False) -> str:
    path = folder / "brats-evaluate"
    path.write_text(FAKE_TOOL.format(python=sys.executable, broken=broken))
    path.chmod(0o755)
    return str(path)


def test_the_official_tool_is_called_and_checked(one_mm: tuple[Path, Path], tmp_path: Path) -> None:
    scores = official_scores(*one_mm, "gli", tool(tmp_path))
    assert [(s.case, s.region, s.tp, s.fp, s.fn, s.sq_dsc) for s in scores] == [
        ("A", "wt", 1, 0, 1, 0.9),
        ("B 2", "wt", 1, 0, 1, 0.9),
    ]
    assert np.isnan(scores[0].sq_hd95)
    assert np.isinf(scores[0].global_bin_hd95)
    with pytest.raises(RuntimeError, match="left out A"):
        official_scores(*one_mm, "gli", tool(tmp_path, broken=True))


def test_what_the_official_tool_would_get_wrong_is_refused(
    one_mm: tuple[Path, Path], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="Did you mean gli"):
        official_scores(*one_mm, "glii", tool(tmp_path))
    with pytest.raises(FileNotFoundError, match="pip install BraTS-evaluation"):
        official_scores(*one_mm, "gli", str(tmp_path / "nothing"))
    (one_mm[0] / "A.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match="no prediction of A"):
        official_scores(*one_mm, "gli", tool(tmp_path))
    with pytest.raises(ValueError, match="1 mm isotropic"):
        official_scores(folders[1], folders[1], "gli", tool(tmp_path))


def test_ignored_voxels_are_not_looked_at(tmp_path: Path) -> None:
    truth = np.zeros((6, 20, 20), int)
    truth[2:4, 4:10, 4:10], truth[:, :, 10:] = 1, 2
    prediction = np.where(truth == 1, 1, 0)
    prediction[2:4, 4:10, 12:18] = 1
    write(tmp_path / "t" / "a.nii.gz", truth)
    write(tmp_path / "p" / "a.nii.gz", prediction)
    (score,) = evaluate_folders(
        tmp_path / "p", tmp_path / "t", Labelling((Region("x", (1,)),), ignore=2)
    )
    assert (score.dice, score.hd95_mm, score.lesions_false) == (1.0, 0.0, 0)
    (seen,) = evaluate_folders(tmp_path / "p", tmp_path / "t", Labelling((Region("x", (1,)),)))
    assert seen.dice < 0.9


@pytest.mark.parametrize("ending", [".nii.gz", ".png"])
def test_one_slice_is_scored_as_a_slice(ending: str, tmp_path: Path) -> None:
    square, moved = np.zeros((1, 60, 60), np.uint8), np.zeros((1, 60, 60), np.uint8)
    square[0, 10:50, 10:50], moved[0, 10:50, 14:54] = 1, 1
    for folder, array in (("t", square), ("p", moved)):
        (tmp_path / folder).mkdir()
        image = sitk.GetImageFromArray(array if ending == ".nii.gz" else array[0])
        sitk.WriteImage(image, str(tmp_path / folder / f"a{ending}"))
    labelling = Labelling((Region("x", (1,)),), ending=ending)
    (score,) = evaluate_folders(tmp_path / "p", tmp_path / "t", labelling)
    assert score.hd95_mm == 4.0
    assert score.surface_dice < 0.6
    assert (score.lesions, score.lesions_found) == (1, 1)


def test_cutting_out_the_foreground_changes_no_score(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth, prediction = np.zeros((20, 40, 40), int), np.zeros((20, 40, 40), int)
    truth[8:12, 10:20, 30:40], prediction[7:12, 11:20, 28:39] = 1, 1  # touches the image's edge
    truth[0:2, 5:8, 5:8] = 1
    prediction ^= rng.random(truth.shape) > 0.999
    for folder, array in (("t", truth), ("p", prediction)):
        write(tmp_path / folder / "a.nii.gz", array)
    (score,) = evaluate_folders(tmp_path / "p", tmp_path / "t", Labelling((Region("x", (1,)),)))
    p, t = prediction == 1, truth == 1
    assert score.dice == dice(p, t)
    assert score.hd95_mm == pytest.approx(hausdorff95(p, t, SPACING))
    assert score.surface_dice == pytest.approx(surface_dice(p, t, SPACING, 1.0))
    assert score.lesion_dice == pytest.approx(lesion_score(p, t, SPACING, 50.0).dice)
