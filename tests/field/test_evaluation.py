"""Label files as laboratories have them: the right score, or a refusal with a reason."""

import csv
import itertools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.stored_volumes import affine_of, write_stored
from nnunet_fm.cli.main import main
from nnunet_fm.evaluation.labels import LabelScheme, Region
from nnunet_fm.evaluation.segmentation import CaseScore, MetricOptions, evaluate_folders

SCHEME = LabelScheme((Region("whole", (1, 2)), Region("core", (2,))), ending=".nii")
AFFINE = affine_of((1.0, 1.5, 3.0), (-40.0, 20.0, 5.0))


def lesions() -> np.ndarray:
    """Two lesions of different labels, on no axis symmetrical."""
    labels = np.zeros((12, 10, 8), np.uint8)
    labels[2:7, 1:5, 2:5], labels[3:5, 2:4, 3:5] = 1, 2
    labels[9:11, 7:9, 5:7] = 1
    return labels


def folders(tmp_path: Path, content: object | None = None) -> list[str]:
    """Write a prediction that equals its truth, and a description; return both folders."""
    for name in ("predictions", "truth"):
        write_stored(tmp_path / name / "a.nii", lesions(), AFFINE)
    description = content or {"labels": {"background": 0, "whole": [1, 2], "core": 2}}
    text = json.dumps({**description, "file_ending": ".nii"})
    (tmp_path / "predictions" / "dataset.json").write_text(text)
    return [str(tmp_path / "predictions"), str(tmp_path / "truth"), "-np", "1"]


def dice_of(folder: Path) -> dict[str, float]:
    with (folder / "predictions" / "scores.csv").open() as stream:
        return {row["region"]: float(row["dice"]) for row in csv.DictReader(stream)}


def moved(mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] += mm
    return affine


def rounded(folder: Path) -> None:
    """Write the truth with the rounding of other programs in qform and sform."""
    noise = np.random.default_rng(0).uniform(-5e-4, 5e-4, (4, 4))
    noise[3] = 0
    image = nib.Nifti1Image(lesions(), AFFINE)
    image.set_sform(AFFINE + noise, 1)
    image.set_qform(AFFINE - noise, 1)
    nib.save(image, folder / "truth" / "a.nii")


RIGHT: dict[str, Callable[[Path], object]] = {
    "permuted": lambda f: write_stored(f / "truth" / "a.nii", lesions(), AFFINE, (2, 0, 1)),
    "flipped": lambda f: write_stored(f / "truth" / "a.nii", lesions(), AFFINE, flips=(-1, 1, -1)),
    "prediction re-stored": lambda f: write_stored(
        f / "predictions" / "a.nii", lesions(), AFFINE, (1, 2, 0), (1, -1, 1)
    ),
    "header rounded": rounded,
    "origin half a voxel away": lambda f: write_stored(
        f / "truth" / "a.nii", lesions(), moved(0.5)
    ),
    "values scaled in the header": lambda f: write_stored(
        f / "truth" / "a.nii", lesions() * np.float32(0.9996), AFFINE
    ),
    "four axes": lambda f: nib.save(
        nib.Nifti1Image(lesions()[..., None], AFFINE), f / "truth" / "a.nii"
    ),
    "a Mac's files": lambda f: (f / "truth" / "._a.nii").write_bytes(b"\0\5\x16\7"),
}


@pytest.mark.parametrize("change", RIGHT.values(), ids=RIGHT)
def test_a_prediction_equal_to_its_truth_scores_one(
    change: Callable[[Path], object], tmp_path: Path
) -> None:
    words = folders(tmp_path)
    change(tmp_path)
    assert main(["evaluate", *words]) == 0
    assert dice_of(tmp_path) == {"whole": 1.0, "core": 1.0}


def with_value(value: float) -> np.ndarray:
    labels = lesions().astype(np.float32)
    labels[0, 0, 0] = value
    return labels


def with_zooms(zooms: tuple[float, float, float]) -> np.ndarray:
    return affine_of(zooms, (-40.0, 20.0, 5.0))


REFUSED: dict[str, tuple[np.ndarray, np.ndarray, str]] = {
    "mirrored": (
        lesions(),
        AFFINE @ np.diag([-1.0, 1, 1, 1]),
        "a (origins 11 mm (11 voxels) apart)",
    ),
    "10 cm away": (lesions(), moved(100), "a (origins 100 mm (100 voxels) apart)"),
    "two voxels away": (lesions(), moved(-2), "a (origins 2 mm (2 voxels) apart)"),
    "oblique": (
        lesions(),
        affine_of((1.0, 1.5, 3.0), (-40.0, 20.0, 5.0), 10),
        "a (axes turned by 10.0 degrees)",
    ),
    "other spacing": (
        lesions(),
        with_zooms((1.0, 1.5, 2.0)),
        "voxels of 1 x 1.5 x 3 mm against 1 x 1.5 x 2 mm",
    ),
    "other size": (lesions()[:-1], AFFINE, "12 x 10 x 8 voxels against 11 x 10 x 8"),
    "interpolated": (with_value(1.992), AFFINE, "a.nii has 1 voxels that are no label, the first"),
    "negative": (with_value(-1), AFFINE, "truth/a.nii has label -1, which no region names"),
    "not a number": (with_value(np.nan), AFFINE, "of value nan"),
    "probability": (lesions() * np.float32(0.4), AFFINE, "of value 0.4"),
    "a label of no region": (with_value(7), AFFINE, "truth/a.nii has label 7"),
    "enhancing tumour 4": (np.where(lesions() == 2, 4, lesions()), AFFINE, "label 4, which"),
    "more than 16 bits": (with_value(65538), AFFINE, "truth/a.nii has label 65538"),
}


@pytest.mark.parametrize(("labels", "affine", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compared_is_refused(
    labels: np.ndarray,
    affine: np.ndarray,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = folders(tmp_path)
    write_stored(tmp_path / "truth" / "a.nii", labels, affine)
    assert main(["evaluate", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "predictions" / "scores.csv").exists()


def test_labels_of_a_prediction_are_checked_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = folders(tmp_path)
    write_stored(tmp_path / "predictions" / "a.nii", with_value(4), AFFINE)
    assert main(["evaluate", *words]) == 2
    assert "predictions/a.nii has label 4" in capsys.readouterr().err


def test_a_wrong_origin_can_be_ignored_and_a_mirrored_image_cannot(tmp_path: Path) -> None:
    words = [*folders(tmp_path), "--ignore-origin"]
    write_stored(tmp_path / "truth" / "a.nii", lesions(), moved(100))
    assert main(["evaluate", *words]) == 0
    assert dice_of(tmp_path)["whole"] == 1.0
    mirrored = AFFINE @ np.diag([-1.0, 1, 1, 1])
    write_stored(tmp_path / "truth" / "a.nii", lesions(), mirrored)
    assert main(["evaluate", *words]) == 0
    assert dice_of(tmp_path)["whole"] < 0.7


def test_an_origin_a_little_off_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = folders(tmp_path)
    write_stored(tmp_path / "truth" / "a.nii", lesions(), moved(0.5))
    main(["evaluate", *words])
    assert "differ from their truth's, by up to 0.5 voxels (a)" in caplog.text


def test_predictions_without_truth_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = folders(tmp_path)
    write_stored(tmp_path / "predictions" / "b.nii", lesions(), AFFINE)
    assert main(["evaluate", *words]) == 0
    assert "has no ground truth for them: " in caplog.text


@pytest.mark.parametrize("name", ["b.nii.gz", "b.NII", "b.mha"])
def test_a_prediction_with_another_ending_is_not_missing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = folders(tmp_path)
    write_stored(tmp_path / "truth" / "b.nii", lesions(), AFFINE)
    (tmp_path / "predictions" / name).touch()
    assert main(["evaluate", *words]) == 2
    assert f"has {name}, but the truth has the ending .nii" in capsys.readouterr().err


NUMBERS = {"0": "background", "1": "whole", "2": "core"}


@pytest.mark.parametrize(
    ("labels", "dice"),
    [
        ({"background": 0, "whole": 1, "core": 2}, {"whole": 1.0, "core": 1.0}),
        (NUMBERS, {"whole": 1.0, "core": 1.0}),
        ({"1": "edema", "0": "bg", "2": "edema"}, {"edema": 1.0}),
        ({"background": "0", "whole": ["1", 2]}, {"whole": 1.0}),
    ],
)
def test_both_forms_of_a_description_are_read(
    labels: dict[str, object], dice: dict[str, float], tmp_path: Path
) -> None:
    assert main(["evaluate", *folders(tmp_path, {"labels": labels})]) == 0
    assert dice_of(tmp_path) == dice


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0}, "names no label but the background"),
        ({"0": "background", "whole": 1}, "label '0' is 'background', not a whole number"),
        ({"whole": 1.7}, "label 'whole' is 1.7"),
        ([1, 2], "is not a dataset.json of nnU-Net"),
    ],
)
def test_other_descriptions_are_refused(
    labels: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *folders(tmp_path, {"labels": labels})]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_folder_is_named(
    missing: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = folders(tmp_path)
    words[missing] = "nofolder"
    assert main(["evaluate", *words]) == 2
    assert "nofolder does not exist; allowed: a folder" in capsys.readouterr().err


ORDERS = st.sampled_from(list(itertools.permutations(range(3))))
FLIPS = st.tuples(*[st.sampled_from((1, -1))] * 3)
SIDES = st.tuples(*[st.integers(2, 7)] * 3)
SPACINGS = st.tuples(*[st.sampled_from((0.4, 0.9375, 1.0, 3.3))] * 3)
METRICS = ("dice", "hd95_mm", "surface_dice", "lesion_dice", "lesion_f1")


def score(folder: Path) -> list[CaseScore]:
    options = MetricOptions(tolerance_mm=1.0, lesion_mm3=2.0)
    return evaluate_folders(folder / "p", folder / "t", SCHEME, 1, options)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    sides=SIDES,
    spacing=SPACINGS,
    degrees=st.sampled_from((0.0, 7.0, 45.0, 90.0)),
    seed=st.integers(0, 99),
    orders=st.tuples(ORDERS, ORDERS),
    flips=st.tuples(FLIPS, FLIPS),
)
def test_storing_a_volume_otherwise_changes_no_metric(
    sides: tuple[int, ...],
    spacing: tuple[float, ...],
    degrees: float,
    seed: int,
    orders: tuple[tuple[int, ...], ...],
    flips: tuple[tuple[int, ...], ...],
) -> None:
    rng = np.random.default_rng(seed)
    truth = (rng.integers(0, 12, sides) % 9 % 3).astype(np.uint8)
    prediction = np.where(rng.random(sides) < 0.3, rng.integers(0, 3, sides), truth)
    affine = affine_of(spacing, rng.uniform(-99, 99, 3), degrees)
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_stored(folder / "t" / "a.nii", truth, affine)
        write_stored(folder / "p" / "a.nii", prediction.astype(np.uint8), affine)
        before = score(folder)
        write_stored(folder / "t" / "a.nii", truth, affine, orders[0], flips[0])
        write_stored(
            folder / "p" / "a.nii", prediction.astype(np.uint8), affine, orders[1], flips[1]
        )
        after = score(folder)
    for one, other in zip(before, after, strict=True):
        expected = asdict(one)
        for key in METRICS:
            expected[key] = pytest.approx(expected[key], rel=1e-5, abs=1e-9)
        assert asdict(other) == expected


def test_labels_that_are_stored_scaled_are_read(tmp_path: Path) -> None:
    """A voxel of 2 bytes on the disk is a floating-point number once it is scaled."""
    words = folders(tmp_path)
    image = nib.Nifti1Image(2 * lesions().astype(np.int16), AFFINE)
    image.header.set_slope_inter(0.5, 0)
    nib.save(image, tmp_path / "predictions" / "a.nii")
    assert main(["evaluate", *words]) == 0
    assert dice_of(tmp_path) == {"whole": 1.0, "core": 1.0}


def test_a_header_with_two_orientations_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Programs read its qform or its sform: which side is left would be a guess."""
    words = folders(tmp_path)
    image = nib.Nifti1Image(lesions(), AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE @ np.diag([-1.0, 1, 1, 1]), 2)
    nib.save(image, tmp_path / "truth" / "a.nii")
    assert main(["evaluate", *words]) == 2
    assert "truth/a.nii has two orientations: RAS by its qform and LAS by its" in (
        capsys.readouterr().err
    )


def test_affines_in_scanner_and_template_coordinates_are_no_conflict(tmp_path: Path) -> None:
    words = folders(tmp_path)
    for name in ("predictions", "truth"):
        image = nib.Nifti1Image(lesions(), AFFINE)
        image.set_qform(AFFINE, 1)
        image.set_sform(moved(12.0), 4)
        nib.save(image, tmp_path / name / "a.nii")
    assert main(["evaluate", *words]) == 0
    assert dice_of(tmp_path) == {"whole": 1.0, "core": 1.0}
