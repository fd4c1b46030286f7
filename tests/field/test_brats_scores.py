"""Scores by the label scheme of a BraTS challenge."""

import csv
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers.brats_downloads import UNTIL_2021, Converter, write_case, write_labels
from nnunet_fm.cli.main import main
from nnunet_fm.data.label_schemes import SCHEMES
from nnunet_fm.evaluation.find_labels import check_official


def write_pair(folder: Path, case: str, truth: Sequence[int], predicted: Sequence[int]) -> None:
    write_labels(folder / "truth" / f"{case}.nii.gz", truth)
    write_labels(folder / "predictions" / f"{case}.nii.gz", predicted)


def evaluate(folder: Path, *words: str) -> int:
    folders = [str(folder / "predictions"), str(folder / "truth")]
    return main(["evaluate", *folders, "-np", "1", "--lesion-mm3", "0", *words])


def dice_of(folder: Path) -> dict[str, float]:
    with (folder / "predictions" / "scores.csv").open() as stream:
        return {row["region"]: float(row["dice"]) for row in csv.DictReader(stream)}


ALL_RIGHT = {"WT": 1.0, "TC": 1.0, "ET": 1.0}


@pytest.mark.parametrize(
    ("case", "truth", "predicted", "words", "dice"),
    [
        # a cavity is no enhancing tumour, although the truth has none
        ("BraTS-GLI-02405-100", (1, 2, 4), (1, 2, 4), (), {**ALL_RIGHT, "RC": 1.0}),
        ("BraTS-GLI-02405-100", (1, 2, 4), (1, 2, 3), (), {"WT": 0.8, "TC": 2 / 3, "ET": 0.0}),
        # nnU-Net's 3 is the challenge's 4, and the challenge's own file may be the truth
        ("BraTS2021_00006", (1, 2, 4), (1, 2, 3), (), ALL_RIGHT),
        ("BraTS2021_00006", (1, 2, 3), (1, 2, 3), (), ALL_RIGHT),
        ("BraTS-GLI-00001-000", (1, 2, 3), (1, 2, 3), (), ALL_RIGHT),
        # a cyst is no enhancing tumour
        ("BraTS-PED-00001-000", (1, 3, 4), (3, 1, 4), (), {"WT": 1.0, "TC": 1.0, "ET": 0.0}),
        ("BraTS-PED-00001-000", (1, 2, 3), (1, 2, 3), ("--scheme", "ped2024"), {"ET": 1.0}),
        ("patient7", (1, 2, 4), (1, 2, 3), ("--scheme", "gli2021"), ALL_RIGHT),
        ("patient7", (1,), (1,), ("--scheme", "menrt"), {"GTV": 1.0}),
    ],
)
def test_regions_are_those_of_the_challenge(
    case: str,
    truth: Sequence[int],
    predicted: Sequence[int],
    words: Sequence[str],
    dice: dict[str, float],
    tmp_path: Path,
) -> None:
    write_pair(tmp_path, case, truth, predicted)
    assert evaluate(tmp_path, *(words or ("--regions", "brats"))) == 0
    scores = dice_of(tmp_path)
    assert {region: scores[region] for region in dice} == pytest.approx(dice)


@pytest.mark.parametrize(
    ("case", "truth", "predicted", "words", "message"),
    [
        ("patient7", (1, 2, 4), (1, 2, 4), ("--regions", "brats"), "not named as in any challenge"),
        ("BraTS-GLI-00001-000", (2, 4), (2, 4), ("--regions", "brats"), "either gli2024"),
        ("BraTS-PED-00001-000", (3,), (3,), ("--regions", "brats"), "mean different things"),
        ("BraTS2021_00006", (1, 2, 4), (3, 4), ("--regions", "brats"), "labels 3 and 4"),
        ("BraTS-GLI-00001-000", (1, 2, 3), (1, 2, 4), ("--regions", "brats"), "label 4"),
        ("patient7", (1, 4), (1, 3), ("--scheme", "men"), "these labels fit gli2021"),
        ("patient7", (1, 7), (1, 3), ("--scheme", "men"), "no scheme has these labels"),
    ],
)
def test_labels_of_another_scheme_are_refused(
    case: str,
    truth: Sequence[int],
    predicted: Sequence[int],
    words: Sequence[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_pair(tmp_path, case, truth, predicted)
    assert evaluate(tmp_path, *words) == 2
    assert message in capsys.readouterr().err


def test_evaluate_finds_the_scheme_that_convert_recorded(
    convert: Converter, tmp_path: Path
) -> None:
    write_case(convert.source / "BraTS-PED-00001-000", (1, 2, 3, 4))
    assert convert()[0] == 0
    write_pair(tmp_path, "BraTS-PED-00001-000", (1, 2, 3), (1, 2, 3))  # alone, this is not clear
    shutil.copy(convert.dataset / "dataset.json", tmp_path / "predictions")
    assert evaluate(tmp_path) == 0
    trained = {"whole tumor", "tumor core", "enhancing tumor", "cystic component"}
    assert set(dice_of(tmp_path)) == trained | {"non-enhancing tumor", "edema"}
    assert evaluate(tmp_path, "--regions", "brats") == 0
    assert set(dice_of(tmp_path)) == {"WT", "TC", "ET", "NET", "CC", "ED"}


def test_the_truth_of_a_recorded_scheme_may_be_the_challenge_s(
    convert: Converter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_case(convert.source / "BraTS2021_00006", (1, 2, 4), UNTIL_2021)
    assert convert()[0] == 0
    write_pair(tmp_path, "BraTS2021_00006", (1, 2, 4), (1, 2, 3))
    shutil.copy(convert.dataset / "dataset.json", tmp_path / "predictions")
    assert evaluate(tmp_path) == 2
    assert "add --scheme gli2021" in capsys.readouterr().err
    assert evaluate(tmp_path, "--scheme", "gli2021") == 0
    assert dice_of(tmp_path) == ALL_RIGHT


@pytest.mark.parametrize("words", [(), ("--regions", "brats")])
@pytest.mark.parametrize(
    ("recorded", "case", "truth", "message"),
    [
        # a model of one challenge, tested on another
        ("gli2024", "BraTS2021_00006", (1, 2, 4), "label 4 of gli2021"),
        ("gli2024", "BraTS-PED-00001-000", (1, 2, 3, 4), "label 1 of ped2024"),
        ("ped2024", "BraTS-GLI-00001-000", (1, 2, 3), "label 1 of gli2023"),
        ("men", "BraTS-MEN-RT-0001-1", (1,), "label 1 of menrt"),  # no region in common
        ("gli2024", "BraTS-MET-00001-000", (1, 2, 3), None),
        ("gli2023", "BraTS2021_00006", (1, 2, 3), None),
        ("gli2021", "BraTS-GLI-00001-000", (1, 2, 3), None),
    ],
)
def test_a_truth_of_another_challenge_has_to_mean_the_same(
    recorded: str,
    case: str,
    truth: Sequence[int],
    message: str | None,
    words: Sequence[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_pair(tmp_path, case, truth, truth)
    labels = SCHEMES[recorded].dataset_labels()
    description = json.dumps({"labels": labels, "label_scheme": recorded})
    (tmp_path / "predictions" / "dataset.json").write_text(description)
    assert evaluate(tmp_path, *words) == (2 if message else 0)
    assert (message or "") in capsys.readouterr().err


def test_names_of_ones_own_do_not_turn_an_older_tumour_into_a_cavity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path, "p01", (1, 2, 4), (1, 2, 3))
    labels = SCHEMES["gli2024"].dataset_labels()
    description = json.dumps({"labels": labels, "label_scheme": "gli2024"})
    (tmp_path / "predictions" / "dataset.json").write_text(description)
    for words in ((), ("--regions", "brats")):
        assert evaluate(tmp_path, *words) == 2
        assert "p01 have label 4 but not 3" in capsys.readouterr().err
    assert evaluate(tmp_path, "--scheme", "gli2024") == 0
    write_labels(tmp_path / "truth" / "p01.nii.gz", (1, 3, 4))
    assert evaluate(tmp_path) == 0


def test_a_refused_label_names_the_schemes_that_have_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path, "a", (1, 4), (1, 3))
    labels = '{"labels": {"background": 0, "whole tumor": [1, 2, 3]}}'  # of version 0.1
    (tmp_path / "predictions" / "dataset.json").write_text(labels)
    assert evaluate(tmp_path) == 2
    error = capsys.readouterr().err
    assert "label 4" in error
    assert "--scheme NAME if one of these fits: gli2021 (1 NCR, 2 ED, 4 ET)" in error


@pytest.mark.parametrize(
    ("case", "truth", "predicted", "challenge", "message"),
    [
        ("BraTS2021_00006", {1, 2, 4}, {1}, "gli", "label 4 of gli2021"),
        ("BraTS-PED-00001-000", {1, 4}, {1}, "GoAT", "label 1 of ped2024"),
        ("patient7", {1, 4}, {1}, "MenPre", "men has the labels"),
        ("BraTS-MEN-RT-0001-1", {1}, {1}, "MenPre", "label 1 of menrt"),  # no region in common
        # the truth alone would do
        ("BraTS2021_00006", {1, 2}, {1, 2, 4}, "gli", "the prediction of BraTS2021_00006"),
        ("BraTS-GLI-00001-000", {1, 2, 3}, {1, 2, 4}, "gli", "has label 4 of gli2023"),
    ],
)
def test_the_official_tool_gets_only_labels_that_it_reads(
    case: str, truth: set[int], predicted: set[int], challenge: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_official({case: frozenset(truth)}, {case: frozenset(predicted)}, challenge)


def test_the_official_tool_is_refused_labels_of_the_recorded_scheme(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cases under names of their own do not tell the scheme; `dataset.json` does."""
    write_pair(tmp_path, "p01", (1, 2, 4), (1, 2, 4))
    labels = SCHEMES["gli2021"].dataset_labels()
    description = json.dumps({"labels": labels, "label_scheme": "gli2021"})
    (tmp_path / "predictions" / "dataset.json").write_text(description)
    words = ["--official", "gli", "--official-tool", sys.executable, "--regions", "brats"]
    assert evaluate(tmp_path, *words) == 2
    assert "label 4 of gli2021" in capsys.readouterr().err
