from pathlib import Path

from nnunet_fm.data.bids import find_images, is_bids


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_images_of_anat_folders_are_found_with_their_entities(tmp_path: Path) -> None:
    root = tmp_path / "ses-9 backup"  # a folder above the dataset does not name a session
    assert not is_bids(root)
    touch(root / "sub-7/ses-1/anat/sub-7_ses-1_acq-a_T1w.nii.gz")
    touch(root / "sub-7/ses-1/anat/sub-7_ses-1_acq-a_T1w.json")
    touch(root / "sub-7/ses-1/func/sub-7_ses-1_bold.nii.gz")
    touch(root / "sub-8/anat/sub-8_inplaneT1.nii")
    touch(root / "sub-8/anat/._sub-8_T1w.nii")
    assert is_bids(root)
    first, second = find_images(root)
    assert (first.subject, first.session, first.sequence) == ("7", "1", "T1")
    assert (first.entities, first.suffix) == (("ses-1", "acq-a"), "T1w")
    assert (second.subject, second.session, second.sequence) == ("8", "", None)
    assert [image.path for image in find_images(root, "8")] == [second.path]


def test_a_description_makes_a_bids_dataset(tmp_path: Path) -> None:
    touch(tmp_path / "dataset_description.json")
    assert is_bids(tmp_path)
