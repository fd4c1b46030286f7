import csv
import json
from pathlib import Path

import pytest

from nnunet_fm_pretrain.data.exclusion import read_subjects, without_subjects
from nnunet_fm_pretrain.data.source import Source
from nnunet_fm_pretrain.data.sources import find_sources


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_folder_of_subjects(volumes: Path) -> None:
    sources = find_sources(volumes, dataset="mine", licence="CC0")
    assert [s.name for s in sources][:2] == ["mine/S00_FLAIR", "mine/S00_T1"]
    assert len(sources) == 12
    assert {s.licence for s in sources} == {"CC0"}


def test_loose_files_take_the_subject_from_their_name(tmp_path: Path) -> None:
    for name in ("IXI002-T1.nii.gz", "IXI002-T2.nii.gz", "other.nii.gz", "IXI002_mask.nii.gz"):
        touch(tmp_path / name)
    assert {(s.subject, s.sequence) for s in find_sources(tmp_path)} == {
        ("IXI002", "T1"),
        ("IXI002", "T2"),
        ("other", "unknown"),
    }


def test_dicom_series_are_found_without_their_ending(tmp_path: Path) -> None:
    names = (
        "P1/T1/IM_0001",
        "P2/FLAIR/1.2.840.113619.2",
        "P3/T2/0001.dcm",
        "P4/T2/0001.IMA",
        "DICOMDIR",
        "P5/notes",
    )
    for name in names:
        content = b"" if name == "P5/notes" else bytes(128) + b"DICM"
        touch(tmp_path / name).write_bytes(content)
    assert [(s.subject, s.sequence) for s in find_sources(tmp_path)] == [
        ("P1", "T1"),
        ("P2", "FLAIR"),
        ("P3", "T2"),
        ("P4", "T2"),
    ]


def test_a_bids_tree(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text(
        json.dumps({"Name": "My set", "License": "CC-BY"})
    )
    for session in ("01", "02"):
        touch(tmp_path / f"sub-7/ses-{session}/anat/sub-7_ses-{session}_T1w.nii.gz")
    touch(tmp_path / "sub-7/ses-01/anat/sub-7_ses-01_FLAIR.nii.gz")
    touch(tmp_path / "sub-7/ses-01/anat/sub-7_ses-01_desc-brain_mask.nii.gz")
    touch(tmp_path / "sub-7/ses-01/func/sub-7_ses-01_task-rest_bold.nii.gz")
    sources = find_sources(tmp_path)
    assert [s.name for s in sources] == [
        "My%20set/7_ses-01_FLAIR",
        "My%20set/7_ses-01_T1",
        "My%20set/7_ses-02_T1",
    ]
    assert sources[0].licence == "CC-BY"


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(subject: str, sequence: str, **more: str) -> dict[str, str]:
    return {
        "subject_id": subject,
        "dataset": "d",
        "sequence": sequence,
        "path": f"{subject}.nii.gz",
        **more,
    }


def test_paths_are_relative_to_their_table(tmp_path: Path) -> None:
    sources = find_sources(
        table(tmp_path / "t.csv", [row("a", "t1ce", mask="m.nii.gz"), row("b", "PDW", mask="")])
    )
    assert [(s.sequence, s.path, s.mask) for s in sources] == [
        ("T1c", tmp_path / "a.nii.gz", tmp_path / "m.nii.gz"),
        ("PD", tmp_path / "b.nii.gz", None),
    ]


def test_two_spellings_of_one_sequence_clash(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"several volumes: d/a_T1c .*Spellings.*session"):
        find_sources(table(tmp_path / "t.csv", [row("a", "t1ce"), row("a", "T1gd")]))


@pytest.mark.parametrize("column", ["session_id", "session"])
def test_sessions_distinguish_volumes_of_one_sequence(tmp_path: Path, column: str) -> None:
    rows = [row("a", "T1", **{column: session}) for session in "12"]
    assert [s.name for s in find_sources(table(tmp_path / "t.csv", rows))] == [
        "d/a_1_T1",
        "d/a_2_T1",
    ]


def test_tables_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks the columns dataset, sequence"):
        find_sources(table(tmp_path / "t.csv", [{"subject_id": "a", "path": "b"}]))
    with pytest.raises(ValueError, match="line 2: sequence is empty"):
        find_sources(table(tmp_path / "t.csv", [row("a", "")]))


def test_a_source_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \.nii"):
        find_sources(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist; give a folder"):
        find_sources(tmp_path / "gone")


def test_excluded_subjects(tmp_path: Path, volumes: Path) -> None:
    file = tmp_path / "exclude.txt"
    file.write_text("# test side\nS00\nmine/S01\nS99  # a typing error\n")
    kept, unmatched = without_subjects(find_sources(volumes, "mine"), read_subjects(file))
    assert {s.subject for s in kept} == {"S02", "S03", "S04", "S05"}
    assert unmatched == ["S99"]
    file.write_text("subject_id,age\nS05,3\n")
    assert read_subjects(file) == ["S05"]
    file.write_text("# nobody\n")
    with pytest.raises(ValueError, match="names no subject"):
        read_subjects(file)


@pytest.mark.parametrize(
    ("excluded", "kept"),
    [
        ("mri/1", ["A02", "BraTS2021_00097"]),  # a spreadsheet removed its zeros
        ("a2", ["01", "BraTS2021_00097"]),
        ("BraTS-GLI-00097-000", ["01", "A02"]),
    ],
)
def test_ids_without_their_zeros_exclude_too(
    excluded: str, kept: list[str], tmp_path: Path
) -> None:
    """Rather one subject too many than one that the test set holds."""
    for subject in ("01", "A02", "BraTS2021_00097"):
        touch(tmp_path / "mri" / subject / "t1.nii.gz")
    file = tmp_path / "exclude.txt"
    file.write_text(f"{excluded}\n")
    sources, unmatched = without_subjects(find_sources(tmp_path / "mri"), read_subjects(file))
    assert [s.subject for s in sources] == kept
    assert not unmatched


def test_subjects_are_read_from_bids_tables_too(tmp_path: Path) -> None:
    touch(tmp_path / "sub-7/anat/sub-7_T1w.nii.gz")
    touch(tmp_path / "sub-8/anat/sub-8_T1w.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-7\t30\n")
    kept, unmatched = without_subjects(
        find_sources(tmp_path), read_subjects(tmp_path / "participants.tsv")
    )
    assert [s.subject for s in kept] == ["8"]
    assert not unmatched
    (tmp_path / "wrong.tsv").write_text("id\tage\n7\t30\n")
    with pytest.raises(
        ValueError, match="has no column subject_id or participant_id; it has: id, age"
    ):
        read_subjects(tmp_path / "wrong.tsv")


@pytest.mark.parametrize("inside", ["", "imagesTr"])
def test_an_nnunet_dataset_gives_training_images_by_case_and_channel(
    tmp_path: Path, inside: str
) -> None:
    about = {"file_ending": ".nii.gz", "channel_names": {"0": "T1", "1": "FLAIR"}}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    for name in (
        "imagesTr/BRATS_001_0000",
        "imagesTr/BRATS_001_0001",
        "labelsTr/BRATS_001",
        "imagesTs/BRATS_002_0000",
    ):
        touch(tmp_path / f"{name}.nii.gz")
    found = find_sources(tmp_path / inside, "d")
    assert [s.name for s in found] == ["d/BRATS_001_FLAIR", "d/BRATS_001_T1"]
    assert [s.name for s in find_sources(tmp_path / "imagesTs", "d")] == ["d/BRATS_002_T1"]


def test_labels_are_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (
        "a/t1.nii.gz",
        "a/aseg.nii.gz",
        "a/brainmask.nii.gz",
        "a/tumor.nii.gz",
        "labelsTr/a.nii.gz",
    ):
        touch(tmp_path / name)
    assert len(find_sources(tmp_path)) == 1
    assert "skipped 4 files that are no images: 4 masks or regions" in caplog.text
    with pytest.raises(ValueError, match="is one image; give the folder"):
        find_sources(tmp_path / "a/t1.nii.gz")


def test_different_ids_never_get_one_name() -> None:
    texts = ["\u00c412", "\uc412", "\u4e2d1", "\u4e2d", "\U00054e2d", "a b", "a%20b", "%c4"]
    names = {Source(text, "d", "T1", Path("x")).name.lower() for text in texts}
    assert len(names) == len(texts)
    assert Source("a b\u00c4", "d", "T1", Path("x")).name == "d/a%20b%c4_T1"  # as in version 0.1
