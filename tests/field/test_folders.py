"""Folders as laboratories have them: which one is the subject, and which one is read."""

import json
from pathlib import Path

import pytest

from helpers.tables import touch_images
from nnunet_fm_pretrain.data.sources import find_sources


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("MICCAI/HGG/CASE7/CASE7_t1", "CASE7"),
        ("HGG/CASE7/CASE7_t1", "CASE7"),
        ("HGG/CASE7/t1", "CASE7"),
        ("site/CASE7/CASE7_t1", "CASE7"),
        ("train/CASE7/t1", "CASE7"),
        ("T1/CASE7", "CASE7"),
        ("CASE7/ses-1/t1", "CASE7"),
        ("study/patient07/t1", "patient07"),
    ],
)
def test_the_subject_is_the_case(path: str, subject: str, tmp_path: Path) -> None:
    (source,) = find_sources(touch_images(tmp_path, path))
    assert (source.subject, source.sequence) == (subject, "T1")


def test_the_folder_of_one_subject_is_the_subject(tmp_path: Path) -> None:
    sources = find_sources(touch_images(tmp_path / "CASE7", "t1", "flair"), "d")
    assert [source.name for source in sources] == ["d/CASE7_FLAIR", "d/CASE7_T1"]


def test_folders_that_may_be_subjects_or_visits_are_refused(tmp_path: Path) -> None:
    touch_images(tmp_path, "Hamburg/P17/t1", "Hamburg/P18/t1")
    with pytest.raises(ValueError, match=r"are Hamburg/P17, Hamburg/P18 visits .*or subjects\?"):
        find_sources(tmp_path)


def nnunet_dataset(root: Path) -> Path:
    about = {"file_ending": ".nii.gz", "channel_names": {"0": "T1", "1": "FLAIR"}}
    touch_images(root, "imagesTr/a_0000", "imagesTr/a_0001", "labelsTr/a", "imagesTs/b_0000")
    (root / "dataset.json").write_text(json.dumps(about))
    return root


@pytest.mark.parametrize(
    ("inside", "names"),
    [
        ("", ["d/a_FLAIR", "d/a_T1"]),
        ("imagesTr", ["d/a_FLAIR", "d/a_T1"]),
        ("imagesTs", ["d/b_T1"]),
    ],
)
def test_the_folder_given_is_the_folder_read(inside: str, names: list[str], tmp_path: Path) -> None:
    found = find_sources(nnunet_dataset(tmp_path) / inside, "d")
    assert [source.name for source in found] == names


def test_a_folder_of_labels_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \.nii"):
        find_sources(nnunet_dataset(tmp_path) / "labelsTr")


@pytest.mark.parametrize(
    "content",
    [{"name": "of another program"}, {"labels": {"0": "background"}, "tensorImageSize": "3D"}, []],
)
@pytest.mark.parametrize("above", [True, False])
def test_a_dataset_json_of_something_else_does_not_matter(
    above: bool, content: object, tmp_path: Path
) -> None:
    touch_images(tmp_path / "data", "case1/t1")
    file = tmp_path / "dataset.json" if above else tmp_path / "data/dataset.json"
    file.write_text(json.dumps(content))
    assert [source.name for source in find_sources(tmp_path / "data", "d")] == ["d/case1_T1"]


def test_a_case_without_its_channel_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch_images(nnunet_dataset(tmp_path), "imagesTr/BRATS_001", "imagesTr/c_0007")
    assert {s.subject for s in find_sources(tmp_path)} == {"a"}
    assert "BRATS_001.nii.gz, c_0007.nii.gz" in caplog.text
