"""Folders of predictions scored against folders of ground truth."""

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from helpers.label_files import SPACING, write_labels
from nnunet_fm.evaluation.labels import BRATS_REGIONS, LabelScheme, Region
from nnunet_fm.evaluation.lesions import lesion_score
from nnunet_fm.evaluation.metrics import dice, hausdorff95, surface_dice
from nnunet_fm.evaluation.score_tables import scores_table
from nnunet_fm.evaluation.segmentation import MetricOptions, evaluate_folders
from nnunet_fm.internal.atomic_files import write_csv

BRATS = LabelScheme(BRATS_REGIONS)


def test_regions_cases_and_missing_predictions(folders: tuple[Path, Path], tmp_path: Path) -> None:
    scores = evaluate_folders(*folders, BRATS)
    by_case = {(s.case, s.region): (s.dice, s.status) for s in scores}
    assert by_case["perfect", "ET"] == (1.0, "ok")  # labels {0,1,2,4} and {0,1,2,3} mean the same
    assert by_case["v1.2 dots", "TC"] == (1.0, "ok")
    assert by_case["v1.2 dots", "ET"] == (0.0, "ok")
    assert by_case["missing", "WT"] == (0.0, "missing")
    write_csv(scores, tmp_path / "out" / "scores.csv")
    with (tmp_path / "out" / "scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 9
    table = scores_table(scores)
    assert f"| ET | 3 | {1 / 3:.4f} ± {np.std([1, 0, 0], ddof=1):.4f} |" in table
    assert "One empty or no prediction" in table


def test_a_resection_cavity_is_not_taken_for_enhancing_tumour(folders: tuple[Path, Path]) -> None:
    write_labels(folders[1] / "perfect.nii.gz", np.arange(4 * 8 * 8).reshape(4, 8, 8) % 5)
    with pytest.raises(ValueError, match="labels 3 and 4, .* gli2024, mets2025"):
        evaluate_folders(*folders, BRATS)


def test_other_grids_and_other_folders_are_refused(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    write_labels(folders[0] / "perfect.nii.gz", np.zeros((4, 8, 9)))
    with pytest.raises(ValueError, match="one grid"):
        evaluate_folders(*folders, BRATS)
    with pytest.raises(FileNotFoundError, match="no folder"):
        evaluate_folders(tmp_path / "gone", folders[1], BRATS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no \*\.nii\.gz"):
        evaluate_folders(folders[0], tmp_path / "empty", BRATS)
    with pytest.raises(FileNotFoundError, match="no prediction for any"):
        evaluate_folders(tmp_path / "empty", folders[1], BRATS)


def test_given_cases_only_and_rules(folders: tuple[Path, Path]) -> None:
    scores = evaluate_folders(*folders, BRATS, cases=["perfect"])
    assert {s.case for s in scores} == {"perfect"}
    with pytest.raises(FileNotFoundError, match="no ground truth of nobody"):
        evaluate_folders(*folders, BRATS, cases=["nobody"])
    with pytest.raises(ValueError, match="0 or more"):
        MetricOptions(tolerance_mm=-1)
    (missing,) = (
        s for s in evaluate_folders(*folders, BRATS) if (s.case, s.region) == ("missing", "WT")
    )
    assert (missing.surface_dice, missing.lesion_dice, missing.lesions, missing.lesions_found) == (
        0.0,
        0.0,
        1,
        0,
    )


def test_ignored_voxels_are_not_scored(tmp_path: Path) -> None:
    truth = np.zeros((6, 20, 20), int)
    truth[2:4, 4:10, 4:10], truth[:, :, 10:] = 1, 2
    prediction = np.where(truth == 1, 1, 0)
    prediction[2:4, 4:10, 12:18] = 1
    write_labels(tmp_path / "t" / "a.nii.gz", truth)
    write_labels(tmp_path / "p" / "a.nii.gz", prediction)
    (score,) = evaluate_folders(
        tmp_path / "p", tmp_path / "t", LabelScheme((Region("x", (1,)),), ignore=2)
    )
    assert (score.dice, score.hd95_mm, score.lesions_false) == (1.0, 0.0, 0)
    both = LabelScheme((Region("x", (1,)), Region("y", (2,))))
    seen, _ = evaluate_folders(tmp_path / "p", tmp_path / "t", both)
    assert seen.dice < 0.9


@pytest.mark.parametrize("ending", [".nii.gz", ".png"])
def test_one_slice_is_scored_as_a_slice(ending: str, tmp_path: Path) -> None:
    square, moved = np.zeros((1, 60, 60), np.uint8), np.zeros((1, 60, 60), np.uint8)
    square[0, 10:50, 10:50], moved[0, 10:50, 14:54] = 1, 1
    for folder, array in (("t", square), ("p", moved)):
        (tmp_path / folder).mkdir()
        image = sitk.GetImageFromArray(array if ending == ".nii.gz" else array[0])
        sitk.WriteImage(image, str(tmp_path / folder / f"a{ending}"))
    labelling = LabelScheme((Region("x", (1,)),), ending=ending)
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
        write_labels(tmp_path / folder / "a.nii.gz", array)
    (score,) = evaluate_folders(tmp_path / "p", tmp_path / "t", LabelScheme((Region("x", (1,)),)))
    p, t = prediction == 1, truth == 1
    assert score.dice == dice(p, t)
    assert score.hd95_mm == pytest.approx(hausdorff95(p, t, SPACING))
    assert score.surface_dice == pytest.approx(surface_dice(p, t, SPACING, 1.0))
    assert score.lesion_dice == pytest.approx(lesion_score(p, t, SPACING, 50.0).dice)
