"""Downloads of BraTS as they really come: every file is used or named."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.brats_downloads import UNTIL_2021, Converter, write_case, write_labels
from nnunet_fm.cli.main import main
from nnunet_fm.data.sequences import sequence_in_file_name
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


@pytest.mark.parametrize(
    "name", ["W39_1998.09.19_Segm.nii", "C_mask.nii.gz", "C_Segmentation.nii.gz", "seg-C.nii.gz"]
)
def test_a_segmentation_with_another_name_is_named(name: str, convert: Converter) -> None:
    write_case(convert.source / "BraTS20_Training_354", (1, 2, 4), UNTIL_2021)
    case = convert.source / "BraTS20_Training_355"
    write_case(case, None, UNTIL_2021)
    write_labels(case / name, (1, 4))
    code, printed = convert()
    assert code == 1
    assert f"{case.name} has no segmentation and is a test case; not used: {name}" in printed
    assert "convert again with --segmentation and its name" in printed  # it may be any of several
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
    write_labels(case / "BraTS2021_00006_t1_bet.nii.gz")
    code, printed = convert("--channel", "T1=*_t1_bet.nii.gz")
    assert code == 1
    assert "BraTS2021_00006: not used: BraTS2021_00006_t1.nii.gz" in printed
    image = convert.dataset / "imagesTr" / "BraTS2021_00006_0000.nii.gz"
    assert image.resolve().name == "BraTS2021_00006_t1_bet.nii.gz"


def test_every_file_is_used_or_named(convert: Converter) -> None:
    case = convert.source / "BraTS2021_00006"
    write_case(case, (1, 2, 4), UNTIL_2021)
    write_labels(case / "BraTS2021_00006_brain.nii.gz")
    write_labels(case / "BraTS2021_00006_t1gd.nii.gz")
    write_labels(case / "._BraTS2021_00006_t1.nii.gz")  # of a Mac
    write_case(convert.source / "BraTS2021_00007", (1, 2, 4), UNTIL_2021)
    write_labels(convert.source / "strange" / "a.nii.gz")
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
        write_labels(convert.source / "corrected" / f"{case}-seg.nii.gz", (2,))
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
