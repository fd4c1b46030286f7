"""Which folder is the subject, in layouts that are common."""

from pathlib import Path

import numpy as np
import pytest

from helpers.dicom import write_series
from helpers.tables import touch_images
from nnunet_fm_pretrain.data.folder_sources import find_place, folder_sources


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("S1/t1", ("S1", "", "T1")),
        ("S1/2019-01-02/t1", ("S1", "2019-01-02", "T1")),
        ("S1/S1_t1", ("S1", "", "T1")),
        ("S1/S1-followup/S1-followup_flair", ("S1", "S1-followup", "FLAIR")),
        ("HGG/Case_1/Case_1_t1ce", ("Case_1", "", "T1c")),
        ("siteA/Case_1/Case_1_t2", ("Case_1", "", "T2")),
        ("siteA/Brats18_2013_2_1/t1", ("Brats18_2013_2_1", "", "T1")),  # a known collection
        (
            "BraTS20_TrainingData/BraTS20_Training_001/BraTS20_Training_001_t1",
            ("BraTS20_Training_001", "", "T1"),
        ),
        ("train/Case_1_t1", ("Case_1", "", "T1")),
        ("imagesTr/Case_1", ("Case_1", "", "unknown")),
        ("T1/Case_1", ("Case_1", "", "T1")),
        ("S1/T1/scan", ("S1", "scan", "T1")),
        ("S1/scan", ("S1", "scan", "unknown")),
        ("1/10_t1", ("1", "", "T1")),
        ("ms/patient07/t1", ("patient07", "", "T1")),
        ("t1", ("given", "", "T1")),  # the folder of one subject
        ("flair_brain", ("brain", "", "FLAIR")),
        ("ses-1/anat/sub-01_ses-1_T1w", ("01", "ses-1", "T1")),  # a subject's folder of BIDS
        ("IXI002-T1", ("IXI002", "", "T1")),
    ],
)
def test_subject_session_and_sequence(path: str, expected: tuple[str, str, str]) -> None:
    *folders, stem = path.split("/")
    place = find_place(folders, stem, "given")
    assert (place.subject, place.session, place.sequence) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("S1/T1", ("S1", "", "T1")),
        ("S1/20190102/3_T1_MPRAGE", ("S1", "20190102", "T1")),
        ("S1/day1", ("S1", "day1", "unknown")),
        ("S1", ("S1", "", "unknown")),
        ("HGG/S1/FLAIR", ("S1", "", "FLAIR")),
    ],
)
def test_folders_of_dicom_series(path: str, expected: tuple[str, str, str]) -> None:
    place = find_place(path.split("/"))
    assert (place.subject, place.session, place.sequence) == expected


@pytest.mark.parametrize(
    "names",
    [
        ("S1/before/t1", "S1/after/t1", "S2/before/t1", "S2/after/t1"),
        ("S1/2019-01-02/t1", "S1/2020-03-04/t1"),
        ("S1/ses-a/t1", "S1/ses-b/t1"),
        ("S1/1/t1", "S1/2/t1"),
    ],
)
def test_visits_are_told_by_their_names(names: tuple[str, ...], tmp_path: Path) -> None:
    assert len(folder_sources(touch_images(tmp_path, *names), "d")) == len(names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("siteA/P01/t1", "siteA/P02/t1"), "are siteA/P01, siteA/P02 visits of one subject"),
        (("HGG/1/t1", "LGG/1/flair"), "subject 1 lies in several folders: HGG/1, LGG/1"),
    ],
)
def test_unclear_subjects_are_refused(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        folder_sources(touch_images(tmp_path, *names), "d")


def test_linked_folders_are_entered_once_and_hidden_ones_never(tmp_path: Path) -> None:
    touch_images(tmp_path, "elsewhere/t1", "root/S1/flair", "root/.git/S9/t1")
    (tmp_path / "root/S2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/S1/loop").symlink_to(tmp_path / "root")
    found = folder_sources(tmp_path / "root", "d")
    assert [source.name for source in found] == ["d/S1_FLAIR", "d/S2_T1"]


def test_a_folder_for_each_sequence_is_no_group_of_subjects(tmp_path: Path) -> None:
    touch_images(tmp_path, "T1/CASE", "FLAIR/CASE")
    found = [(s.subject, s.sequence) for s in folder_sources(tmp_path, "d")]
    assert sorted(found) == [("CASE", "FLAIR"), ("CASE", "T1")]


def test_series_in_the_folder_of_one_subject_are_of_this_subject(tmp_path: Path) -> None:
    for name in ("T1", "FLAIR"):
        write_series(tmp_path / "P7" / name, np.ones((2, 4, 4)))
    found = [(s.subject, s.sequence) for s in folder_sources(tmp_path / "P7", "d")]
    assert sorted(found) == [("P7", "FLAIR"), ("P7", "T1")]


def test_series_in_a_folder_of_masks_are_no_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_series(tmp_path / "P7" / "masks" / "T1", np.ones((2, 4, 4)))
    write_series(tmp_path / "P7" / "FLAIR", np.ones((2, 4, 4)))
    assert [s.sequence for s in folder_sources(tmp_path, "d")] == ["FLAIR"]
    assert "1 masks or regions (T1)" in caplog.text
