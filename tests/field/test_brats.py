"""BraTS data as it really comes: names of sequences and files, label schemes of the challenges."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from nnunet_fm.cli.main import main
from nnunet_fm.data.label_schemes import SCHEMES
from nnunet_fm.data.sequences import sequence_in_file_name
from nnunet_fm.evaluation.find_labels import check_official
from nnunet_fm.experiments.datasets import Expected, check_expected
from nnunet_fm_pretrain.data.folder_sources import find_place


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        # contrast-enhanced, in the words of clinics, archives and data sets
        ("p7_T1_Gd", "T1c"),
        ("p7_T1_post", "T1c"),
        ("p7_T1-CE", "T1c"),
        ("p7_T1_contrast", "T1c"),
        ("p7_T1w_ce", "T1c"),
        ("p7_T1wCE", "T1c"),
        ("p7_T1+C", "T1c"),
        ("p7_T1_post_contrast", "T1c"),
        ("t1_gd", "T1c"),
        ("AX_T1_SE_POST_GD", "T1c"),
        ("p7_t1_mprage_sag_post", "T1c"),
        ("sub-7_ce-gadolinium_acq-3d_T1w", "T1c"),
        ("sub-7_ce-gd_T1w", "T1c"),
        # no agent, although a word of it is there
        ("p7_T1_pre_contrast", "T1"),
        ("p7_T1_no_contrast", "T1"),
        ("p7_T1_noncontrast", "T1"),
        ("sub-7_ses-post_T1w", "T1"),
        ("p7_T1_post_op", "T1"),
        ("GD_001_T1", "T1"),
        # two sequences in one name
        ("p7_T1_FLAIR", "T1"),
        ("p7_T2_FLAIR", "FLAIR"),
        ("sub-7_space-T1w_FLAIR", "FLAIR"),
        ("p7_FLAIR_regto_T1", "FLAIR"),
        ("p7_T1_T2", None),
        ("sub-7_ce-gd_FLAIR", "FLAIR"),
    ],
)
def test_contrast_agents_are_read_from_file_names(name: str, sequence: str | None) -> None:
    assert sequence_in_file_name(f"{name}.nii.gz") == sequence


@pytest.mark.parametrize("name", ["p7_T1_Gd", "p7_T1_post", "p7_T1-CE", "p7_T2_FLAIR", "p7_T1"])
def test_a_contrast_agent_is_no_part_of_the_subject(name: str) -> None:
    assert find_place((), name).subject == "p7"


SINCE_2023 = ("-t1n", "-t1c", "-t2w", "-t2f", "-seg")
UNTIL_2021 = ("_t1", "_t1ce", "_t2", "_flair", "_seg")
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write(path: Path, labels: Sequence[int] = (), affine: np.ndarray = LPS) -> None:
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
        write(folder / f"{folder.name}{ending}.nii.gz", (), affine)
    if labels is not None:
        write(folder / f"{folder.name}{endings[4]}.nii.gz", labels, affine)


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


@pytest.fixture
def convert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Converter:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    return Converter(tmp_path, capsys)


GLIOMA = {"whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": [3]}
CAVITY = {**GLIOMA, "resection cavity": [4]}
PAEDIATRIC = {
    "whole tumor": [1, 2, 3, 4],
    "tumor core": [1, 2, 3],
    "enhancing tumor": [1],
    "cystic component": [3],
}


@pytest.mark.parametrize(
    ("case", "labels", "endings", "scheme", "written", "regions"),
    [
        ("BraTS2021_00006", (1, 2, 4), UNTIL_2021, "gli2021", [0, 1, 2, 3], GLIOMA),
        ("BraTS20_Training_001", (1, 2, 4), UNTIL_2021, "gli2021", [0, 1, 2, 3], GLIOMA),
        ("Brats18_2013_2_1", (2, 4), UNTIL_2021, "gli2021", [0, 2, 3], GLIOMA),
        ("BraTS-GLI-00001-000", (1, 2, 3), SINCE_2023, "gli2023", [0, 1, 2, 3], GLIOMA),
        ("BraTS-GLI-02405-100", (1, 2, 3, 4), SINCE_2023, "gli2024", [0, 1, 2, 3, 4], CAVITY),
        ("BraTS-GLI-02405-100", (1, 2, 4), SINCE_2023, "gli2024", [0, 1, 2, 4], CAVITY),
        ("BraTS-GLI-00001-000", (1, 2, 3, 4), SINCE_2023, "gli2024", [0, 1, 2, 3, 4], CAVITY),
        ("BraTS-SSA-00002-000", (1, 2, 3), SINCE_2023, "ssa", [0, 1, 2, 3], GLIOMA),
        ("BraTS-MEN-00004-000", (1, 2, 3), SINCE_2023, "men", [0, 1, 2, 3], GLIOMA),
        ("BraTS-MET-00001-000", (1, 2, 3), SINCE_2023, "mets2023", [0, 1, 2, 3], GLIOMA),
        ("BraTS-MET-00001-000", (3, 4), SINCE_2023, "mets2025", [0, 3, 4], CAVITY),
        ("BraTS-PED-00001-000", (1, 2, 3, 4), SINCE_2023, "ped2024", [0, 1, 2, 3, 4], PAEDIATRIC),
        ("BraTS-GoAT-00000", (1, 2, 3), SINCE_2023, "goat", [0, 1, 2, 3], GLIOMA),
    ],
)
def test_each_challenge_has_its_labels(
    case: str,
    labels: Sequence[int],
    endings: Sequence[str],
    scheme: str,
    written: list[int],
    regions: dict[str, list[int]],
    convert: Converter,
) -> None:
    write_case(convert.source / case, labels, endings)
    code, printed = convert()
    assert code == 0, printed
    assert f"label scheme {scheme} (" in printed
    assert convert.labels(case) == written
    description = convert.description()
    assert description["label_scheme"] == scheme
    assert description["labels"] == {"background": 0, **regions}
    order = description["regions_class_order"]
    for label, own in zip(order, regions.values(), strict=True):
        assert label in own


def test_radiotherapy_cases_have_one_channel_and_one_label(convert: Converter) -> None:
    case = convert.source / "BraTS-MEN-RT-0001-1"
    write(case / f"{case.name}_t1c.nii.gz")
    write(case / f"{case.name}_gtv.nii.gz", (1, 1))
    assert convert()[0] == 0
    assert convert.description()["channel_names"] == {"0": "T1c"}
    assert convert.description()["labels"] == {"background": 0, "gross tumor volume": 1}


@pytest.mark.parametrize(
    ("case", "labels", "message"),
    [
        # of 2023 with ET = 3, or of 2024 with a cyst = 3
        ("BraTS-PED-00001-000", (1, 2, 3), "mean different things in ped2023"),
        # a cavity, or enhancing tumour of an older scheme under a new name
        ("BraTS-GLI-00001-000", (1, 2, 4), "either gli2024"),
        ("BraTS2021_00006", (1, 2, 3), "gli2021 has the labels 1 NCR, 2 ED, 4 ET, but"),
        ("BraTS-MEN-00004-000", (1, 4), "these labels fit gli2021"),
        ("patient7", (1, 2, 3), "not named as in any challenge"),
        ("patient7", (1, 2, 4), "not named as in any challenge"),
    ],
)
def test_unclear_labels_are_refused_until_a_scheme_is_given(
    case: str, labels: Sequence[int], message: str, convert: Converter
) -> None:
    write_case(convert.source / case, labels)
    code, printed = convert()
    assert code == 2
    assert message in printed
    assert "type --scheme NAME" in printed
    assert not list(convert.raw.iterdir())
    code, printed = convert("--scheme", "gli2021" if 4 in labels else "gli2023")
    assert code == 0
    assert "given" in printed
    assert 3 in convert.labels(case) or 3 not in labels


def test_a_given_scheme_has_to_fit(convert: Converter) -> None:
    write_case(convert.source / "patient7", (1, 2, 4))
    code, printed = convert("--scheme", "men")
    assert code == 2
    assert "patient7 have 1, 2, 4; these labels fit gli2021" in printed
    assert "unknown label scheme 'gli2012'. Did you mean" in convert("--scheme", "gli2012")[1]


def test_labels_of_one_case_decide_for_its_folder(convert: Converter) -> None:
    write_case(convert.source / "BraTS-PED-00001-000", (1, 2, 3))
    write_case(convert.source / "BraTS-PED-00002-000", (2, 4))
    assert "label scheme ped2024" in convert()[1]


def test_challenges_with_other_labels_do_not_go_together(convert: Converter) -> None:
    write_case(convert.source / "BraTS2021_00006", (1, 2, 4), UNTIL_2021)
    write_case(convert.source / "BraTS-PED-00002-000", (1, 2, 3, 4))
    code, printed = convert()
    assert code == 2
    assert "which do not go together" in printed


@pytest.mark.parametrize(
    "name", ["W39_1998.09.19_Segm.nii", "C_mask.nii.gz", "C_Segmentation.nii.gz", "seg-C.nii.gz"]
)
def test_a_segmentation_with_another_name_is_named(name: str, convert: Converter) -> None:
    write_case(convert.source / "BraTS20_Training_354", (1, 2, 4), UNTIL_2021)
    case = convert.source / "BraTS20_Training_355"
    write_case(case, None, UNTIL_2021)
    write(case / name, (1, 4))
    code, printed = convert()
    assert code == 1
    assert f"{case.name} has no segmentation and is a test case; not used: {name}" in printed
    assert f"1 of 2 cases have no segmentation and are test cases: {case.name}" in printed
    shutil.rmtree(convert.dataset)
    assert convert("--strict")[0] == 2
    assert not list(convert.raw.iterdir())
    assert convert("--segmentation", name)[0] == 0
    assert convert.labels(case.name) == [0, 1, 3]


def test_an_unlabelled_case_among_labelled_ones_is_a_warning(convert: Converter) -> None:
    write_case(convert.source / "BraTS2021_00006", (1, 2, 4), UNTIL_2021)
    write_case(convert.source / "BraTS2021_00007", None, UNTIL_2021)
    code, printed = convert()
    assert code == 0  # every file was used
    assert "WARNING: 1 of 2 cases have no segmentation" in printed


def test_linked_case_folders_are_found(convert: Converter, tmp_path: Path) -> None:
    write_case(tmp_path / "elsewhere" / "BraTS2021_00006", (1, 2, 4), UNTIL_2021)
    convert.source.mkdir()
    (convert.source / "BraTS2021_00006").symlink_to(tmp_path / "elsewhere" / "BraTS2021_00006")
    (convert.source / "back").symlink_to(convert.source)
    assert "1 training and 0 test cases" in convert()[1]


def test_images_with_other_names_are_named_and_can_be_given(convert: Converter) -> None:
    case = convert.source / "BraTS2021_00006"
    write_case(case, (1, 2, 4), ("_t1_bet", "_t1ce", "_t2", "_fla_bet", "_seg"))
    write_case(convert.source / "BraTS2021_00007", (1, 2, 4), UNTIL_2021)
    code, printed = convert()
    assert code == 1
    assert "incomplete: no T1, FLAIR; other files there: BraTS2021_00006_fla_bet.nii.gz" in printed
    shutil.rmtree(convert.dataset)
    words = ["--channel", "T1=*_t1_bet.nii.gz", "--channel", "FLAIR=*_fla_bet.nii.gz"]
    assert convert(*words)[0] == 0
    assert len(list((convert.dataset / "imagesTr").iterdir())) == 8
    assert "allowed: CHANNEL=PATTERN" in convert("--channel", "T1")[1]
    assert "unknown channel 'T1w'" in convert("--channel", "T1w=*")[1]


def test_a_given_name_comes_before_the_usual_one(convert: Converter) -> None:
    case = convert.source / "BraTS2021_00006"
    write_case(case, (1, 2, 4), UNTIL_2021)
    write(case / "BraTS2021_00006_t1_bet.nii.gz")
    code, printed = convert("--channel", "T1=*_t1_bet.nii.gz")
    assert code == 1
    assert "BraTS2021_00006: not used: BraTS2021_00006_t1.nii.gz" in printed
    image = convert.dataset / "imagesTr" / "BraTS2021_00006_0000.nii.gz"
    assert image.resolve().name == "BraTS2021_00006_t1_bet.nii.gz"


def test_every_file_is_used_or_named(convert: Converter) -> None:
    case = convert.source / "BraTS2021_00006"
    write_case(case, (1, 2, 4), UNTIL_2021)
    write(case / "BraTS2021_00006_brain.nii.gz")
    write(case / "BraTS2021_00006_t1gd.nii.gz")
    write(case / "._BraTS2021_00006_t1.nii.gz")  # of a Mac
    write_case(convert.source / "BraTS2021_00007", (1, 2, 4), UNTIL_2021)
    write(convert.source / "strange" / "a.nii.gz")
    code, printed = convert()
    assert code == 1
    assert "BraTS2021_00006: two files of one channel, T1c: BraTS2021_00006_t1ce.nii.gz" in printed
    assert "skipped strange: no channel among its files: a.nii.gz" in printed
    assert "._" not in printed
    assert "BraTS2021_00006" in (convert.dataset / "skipped.csv").read_text()


def test_segmentations_in_a_folder_of_their_own_join_their_images(convert: Converter) -> None:
    write_case(convert.source / "images" / "BraTS-MET-00001-000", None)
    write_case(convert.source / "images" / "BraTS-MET-00002-000", (1, 3))
    for case in ("BraTS-MET-00001-000", "BraTS-MET-00002-000"):
        write(convert.source / "corrected" / f"{case}-seg.nii.gz", (2,))
    code, printed = convert()
    assert code == 1
    assert "2 training and 0 test cases" in printed
    assert convert.labels("BraTS-MET-00001-000") == [0, 2]
    assert convert.labels("BraTS-MET-00002-000") == [0, 1, 3]
    folder = convert.source / "corrected"
    assert f"BraTS-MET-00002-000 ({folder}): a second segmentation of this name" in printed


def test_mixed_orientations_are_listed(convert: Converter) -> None:
    write_case(convert.source / "BraTS2021_00001", (1, 2, 4), UNTIL_2021)
    write_case(convert.source / "BraTS2021_00002", (1, 2, 4), UNTIL_2021)
    write_case(convert.source / "BraTS2021_00003", (1, 2, 4), UNTIL_2021, np.eye(4))
    code, printed = convert()
    assert code == 0
    assert "2 LPS (BraTS2021_00001, BraTS2021_00002), 1 RAS (BraTS2021_00003)" in printed
    assert '"overwrite_image_reader_writer": "NibabelIOWithReorient"' in printed


def test_a_mistyped_nnunet_folder_is_not_created(
    convert: Converter, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_case(convert.source / "BraTS2021_00006", (1, 2, 4), UNTIL_2021)
    monkeypatch.setenv("nnUNet_raw", str(convert.raw / "mistyped"))
    code, printed = convert()
    assert code == 2
    assert "type: mkdir -p" in printed
    assert not list(convert.raw.iterdir())


def test_help_shows_layouts_and_schemes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "brats", "--help"])
    printed = capsys.readouterr().out
    for words in ("BraTS-MEN-RT-0001-1", "1 ET, 2 NET, 3 CC, 4 ED", "--segmentation", "Exit code"):
        assert words in printed


def write_pair(folder: Path, case: str, truth: Sequence[int], predicted: Sequence[int]) -> None:
    write(folder / "truth" / f"{case}.nii.gz", truth)
    write(folder / "predictions" / f"{case}.nii.gz", predicted)


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
    ("case", "truth", "challenge", "message"),
    [
        ("BraTS2021_00006", (1, 2, 4), "gli", "label 4 of gli2021"),
        ("BraTS-PED-00001-000", (1, 4), "GoAT", "label 1 of ped2024"),
        ("patient7", (1, 4), "MenPre", "men has the labels"),
    ],
)
def test_the_official_tool_gets_only_labels_that_it_reads(
    case: str, truth: Sequence[int], challenge: str, message: str, tmp_path: Path
) -> None:
    write_pair(tmp_path, case, truth, truth)
    with pytest.raises(ValueError, match=message):
        check_official(tmp_path / "truth", challenge, ".nii.gz")


@pytest.mark.parametrize(
    ("recorded", "message"),
    [("gli2021", None), (None, None), ("gli2024", "has the label scheme gli2024")],
)
def test_sweeps_expect_a_scheme(recorded: str | None, message: str | None, tmp_path: Path) -> None:
    description = {
        "numTraining": 1,
        "file_ending": ".nii.gz",
        "labels": SCHEMES["gli2021"].dataset_labels(),
        **({"label_scheme": recorded} if recorded else {}),  # version 0.1 wrote none
    }
    dataset = tmp_path / "Dataset005_X"
    write(dataset / "gt_segmentations" / "a.nii.gz")
    (dataset / "dataset.json").write_text(json.dumps(description))
    expected = Expected(cases=1, scheme="gli2021")
    if message is None:
        check_expected(dataset, expected)
    else:
        with pytest.raises(ValueError, match=message):
            check_expected(dataset, expected)
