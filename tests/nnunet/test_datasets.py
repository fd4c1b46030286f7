"""Ids and names of nnU-Net's datasets."""

from pathlib import Path

import pytest

from nnunet_fm.nnunet.datasets import dataset_id, dataset_name


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "nnUNet_raw" / "Dataset008_BraTS21").mkdir()
    (tmp_path / "nnUNet_preprocessed" / "Dataset008_BraTS21").mkdir()


def test_an_id_or_a_name_gives_the_name() -> None:
    assert dataset_name(8) == dataset_name("8") == "Dataset008_BraTS21"
    assert dataset_name("Dataset009_Other") == "Dataset009_Other"


def test_unknown_ids_and_words_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no dataset 999 .*; there are: Dataset008_BraTS21"):
        dataset_name(999)
    with pytest.raises(ValueError, match="dataset 'brats'; allowed: an id such as 8"):
        dataset_name("brats")
    (tmp_path / "nnUNet_results" / "Dataset008_Twin").mkdir()
    with pytest.raises(ValueError, match="several datasets have the id 8: .*Dataset008_Twin"):
        dataset_name(8)


def test_a_folder_of_nnunet_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "file"))
    monkeypatch.setenv("nnUNet_results", "")
    about = "nnUNet_raw is .*file, which is no folder; nnUNet_results is not set"
    with pytest.raises(ValueError, match=about):
        dataset_name(999)


def test_a_name_gives_the_id() -> None:
    assert dataset_id("Dataset008_BraTS21") == 8
    with pytest.raises(ValueError, match="dataset 'BraTS21'"):
        dataset_id("BraTS21")
