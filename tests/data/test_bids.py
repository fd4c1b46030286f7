from pathlib import Path

import pytest

from nnunet_fm.data import bids
from nnunet_fm.data.bids import BidsName, find_images, is_bids, parse_name


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
    assert first.name == BidsName({"sub": "7", "ses": "1", "acq": "a"}, "T1w")
    assert first.name.variant == "ses-1_acq-a"
    assert (second.subject, second.session, second.sequence) == ("8", "", None)
    assert (first.fault, second.fault) == ("", "")
    assert [image.path for image in find_images(root, "8")] == [second.path]


def test_a_description_makes_a_bids_dataset(tmp_path: Path) -> None:
    touch(tmp_path / "dataset_description.json")
    assert is_bids(tmp_path)


@pytest.mark.parametrize(
    ("name", "fault", "sequence"),
    [
        ("T1w", "", "T1"),
        ("ses-1_acq-a_run-02_FLAIR", "", "FLAIR"),
        ("run-1_acq-a_T2w", "", "T2"),  # the order of entities is nothing to fail for
        ("ce-gadolinium_T1w", "", "T1c"),
        ("ce-gadolinium_FLAIR", "", "FLAIR"),
        ("part-mag_T2starw", "", "T2*"),
        ("part-phase_T2starw", bids.PHASE, "T2*"),
        ("part-real_T1w", bids.PHASE, "T1"),
        ("T1map", bids.MAP, None),
        ("R2starmap", bids.MAP, None),
        ("UNIT1", bids.MAP, None),
        ("inv-1_MP2RAGE", bids.PROTOCOL, "T1"),
        ("label-lesion_roi", bids.MASK, None),
        ("label-WM_probseg", bids.MASK, None),
        ("mod-T1w_defacemask", bids.MASK, None),
        ("desc-brain_mask", bids.MASK, None),
        ("desc-brain_T1w", bids.DERIVATIVE, "T1"),
        ("space-MNI152_FLAIR", bids.DERIVATIVE, "FLAIR"),
        ("wmh", bids.NO_BIDS, None),
        ("foo-1_T1w", bids.NO_BIDS, "T1"),
    ],
)
def test_only_raw_weighted_images_are_without_fault(
    name: str, fault: str, sequence: str | None
) -> None:
    parsed = parse_name(f"sub-7_{name}.nii.gz")
    assert parsed is not None
    assert parsed.fault() == fault
    if not fault:
        assert parsed.sequence == sequence


@pytest.mark.parametrize("name", ["sub-7_T1w_mask", "T1w", "sub-7", "ses-1_T1w", "sub-7_acq-_T1w"])
def test_names_that_are_not_bids_are_not_parsed(name: str) -> None:
    assert parse_name(f"{name}.nii.gz") is None


def test_derivative_datasets_and_misplaced_files_hold_no_raw_images(tmp_path: Path) -> None:
    touch(tmp_path / "sub-1/anat/sub-1_T1w.nii.gz")
    touch(tmp_path / "sub-1/anat/sub-2_T1w.nii.gz")
    assert [image.fault for image in find_images(tmp_path)] == ["", bids.MISPLACED]
    (tmp_path / "dataset_description.json").write_text('{"DatasetType": "derivative"}')
    assert next(find_images(tmp_path)).fault == bids.DERIVATIVE
    (tmp_path / "dataset_description.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        next(find_images(tmp_path))


def test_linked_subjects_are_found(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere/anat/sub-1_T1w.nii.gz")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/sub-1").symlink_to(tmp_path / "elsewhere")
    assert is_bids(tmp_path / "root")
    assert [image.subject for image in find_images(tmp_path / "root")] == ["1"]


def test_preferences_narrow_candidates_down(tmp_path: Path) -> None:
    for name in ("acq-a_run-01", "acq-a_run-02", "acq-b", ""):
        touch(tmp_path / "sub-1/anat" / "_".join(filter(None, ["sub-1", name, "T1w.nii.gz"])))
    images = list(find_images(tmp_path))

    def chosen(*words: str) -> list[str]:
        kept = bids.preferred(images, bids.parse_preferences(words))
        return [image.name.variant for image in kept if image.name]

    assert chosen("acq=a", "run=2") == ["acq-a_run-02"]
    assert chosen("acq=b") == ["acq-b"]
    assert chosen("acq=") == [""]
    assert len(chosen("rec=x")) == 4  # nobody has it
    with pytest.raises(ValueError, match="unknown entity of --prefer 'acquisition'.*Allowed: acq,"):
        bids.parse_preferences(["acquisition=a"])
    with pytest.raises(ValueError, match="allowed: ENTITY=VALUE"):
        bids.parse_preferences(["mprage"])
