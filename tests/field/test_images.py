"""Files as laboratories have them: what is taken as an image, and whose it is."""

from pathlib import Path

import pytest

from helpers.tables import touch_images, write_table
from nnunet_fm.cli.main import main
from nnunet_fm.data.subject_table import read_table
from nnunet_fm_pretrain.data.sources import find_sources

NO_BIDS_IMAGES = {
    "a lesion region": "acq-a_label-lesion_roi",
    "a lesion mask": "label-lesion_mask",
    "a region of the T1 space": "T1w_label-lesion_roi",
    "a segmentation": "dseg",
    "a brain mask": "T1w_mask",
    "a mask of defacing": "mod-T1w_defacemask",
    "white-matter hyperintensities": "FLAIR_wmh",
    "a tumour volume": "T1w_gtv",
    "a short word for mask": "FLAIR_msk",
    "a consensus of raters": "FLAIR_Consensus",
    "a T1 map": "T1map",
    "a T2 map": "T2map",
    "a phase image": "part-phase_T1w",
    "a real part": "part-real_T1w",
    "an imaginary part": "part-imag_FLAIR",
    "a skull-stripped derivative": "desc-brain_T1w",
    "a derivative in another space": "space-MNI152NLin2009cAsym_T1w",
    "an inversion of MP2RAGE": "inv-1_MP2RAGE",
    "a word behind the suffix": "T1w_brain",
}
NO_IMAGES = {
    "a lesion region": "t1_label-lesion_roi",
    "a mask in a space": "flair_lesionmask",
    "white-matter hyperintensities": "wmh",
    "a tumour volume": "t1_gtv",
    "a short word for mask": "flair_msk",
    "a consensus of raters": "flair-Consensus",
    "ground truth": "flair_gt",
    "a T1 map": "t1_map",
    "a T1 map in one word": "T1map",
    "a phase image": "t1_phase",
}


def bids_dataset(root: Path, *names: str, people: tuple[str, ...] = ("sub-01",)) -> Path:
    """Touch images of subjects by their names, and write their `participants.tsv`."""
    touch_images(root, *(f"{name.split('_')[0]}/anat/{name}" for name in names))
    return write_table(root / "participants.tsv", [{"participant_id": p} for p in people])


@pytest.mark.parametrize("name", NO_BIDS_IMAGES.values(), ids=NO_BIDS_IMAGES)
def test_bids_files_that_are_no_images_are_none(name: str, tmp_path: Path) -> None:
    table = bids_dataset(tmp_path, "sub-01_T1w", f"sub-01_{name}", "sub-01_FLAIR")
    (row,) = read_table(table).rows
    files = {sequence: path.name for sequence, path in row.volumes.items()}
    assert files == {"T1": "sub-01_T1w.nii.gz", "FLAIR": "sub-01_FLAIR.nii.gz"}
    assert sorted(s.path.name for s in find_sources(tmp_path)) == [
        "sub-01_FLAIR.nii.gz",
        "sub-01_T1w.nii.gz",
    ]


@pytest.mark.parametrize("name", NO_BIDS_IMAGES.values(), ids=NO_BIDS_IMAGES)
def test_they_do_not_stand_in_for_a_missing_image(name: str, tmp_path: Path) -> None:
    table = bids_dataset(tmp_path, "sub-01_T2w", f"sub-02_{name}", people=("sub-01", "sub-02"))
    first, second = read_table(table).rows
    assert (list(first.volumes), list(second.volumes)) == (["T2"], [])
    assert [s.name for s in find_sources(tmp_path, "d")] == ["d/01_T2"]


@pytest.mark.parametrize("name", NO_IMAGES.values(), ids=NO_IMAGES)
def test_files_outside_bids_that_are_no_images_are_none(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch_images(tmp_path, "case1/t1", f"case1/{name}")
    assert [s.name for s in find_sources(tmp_path, "d")] == ["d/case1_T1"]
    assert f"{name}.nii.gz" in caplog.text


@pytest.mark.parametrize("name", ["T1_map", "tumor_seg", "T1_phase"])
def test_dicom_folders_that_hold_no_images_are_none(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("T1", name):
        (tmp_path / "case1" / folder).mkdir(parents=True)
        (tmp_path / "case1" / folder / "1.dcm").touch()
    assert [s.name for s in find_sources(tmp_path, "d")] == ["d/case1_T1"]
    assert name in caplog.text


@pytest.mark.parametrize(
    ("names", "given", "taken"),
    [
        (("acq-mprage_T1w", "acq-space_T1w"), "acq=space", "acq-space_T1w"),
        (("run-1_T1w", "run-2_T1w"), "run=2", "run-2_T1w"),
        (("run-01_T1w", "run-02_T1w"), "run=1", "run-01_T1w"),
        (("T1w", "acq-lowres_T1w"), "acq=", "T1w"),
        (("rec-norm_FLAIR", "FLAIR"), "rec=norm", "rec-norm_FLAIR"),
        (("FLAIR", "ce-gd_FLAIR"), "ce=", "FLAIR"),
        (("echo-1_T2starw", "echo-2_T2starw"), "echo=2", "echo-2_T2starw"),
    ],
)
def test_the_alphabet_does_not_decide_between_candidates(
    names: tuple[str, ...],
    given: str,
    taken: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = bids_dataset(tmp_path, *(f"sub-01_{name}" for name in names))
    command = ["features", "check-table", str(table), "--cache", str(tmp_path / "cache")]
    assert main(command) == 2
    assert f"several images of one sequence, e.g. sub-01_{min(names)}" in capsys.readouterr().err
    assert main([*command, "--prefer", given]) == 0
    (row,) = read_table(table, prefer=[given]).rows
    assert [path.name for path in row.volumes.values()] == [f"sub-01_{taken}.nii.gz"]


@pytest.mark.parametrize("column", ["seg", "lesion_mask", "Consensus", "wmh", "FLAIR_roi"])
def test_columns_of_masks_are_no_modalities(
    column: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows: list[dict[str, object]] = [{"subject_id": "a", "T1": "a.nii.gz", column: "b.nii.gz"}]
    assert read_table(write_table(tmp_path / "t.csv", rows)).modalities == ("T1",)
    assert f"columns of masks are no modalities: {column}" in caplog.text


def test_contrast_agents_make_another_sequence(tmp_path: Path) -> None:
    table = bids_dataset(tmp_path, "sub-01_T1w", "sub-01_ce-gd_T1w")
    (row,) = read_table(table).rows
    assert {s: path.name for s, path in row.volumes.items()} == {
        "T1": "sub-01_T1w.nii.gz",
        "T1c": "sub-01_ce-gd_T1w.nii.gz",
    }


@pytest.mark.parametrize(
    ("folders", "people"),
    [
        (("sub-01", "sub-02"), ("1", "2")),
        (("sub-001", "sub-010"), ("1", "10")),
        (("sub-01", "sub-02"), ("sub-1", "sub-2")),
        (("sub-MS007",), ("sub-MS7",)),
        (("sub-ms1",), ("MS1",)),
    ],
)
def test_participants_without_leading_zeros_have_their_images(
    folders: tuple[str, ...], people: tuple[str, ...], tmp_path: Path
) -> None:
    table = bids_dataset(tmp_path, *(f"{folder}_T1w" for folder in folders), people=people)
    rows = read_table(table).rows
    assert [f"sub-{row.subject}" for row in rows] == list(folders)
    assert [row.volumes["T1"].name for row in rows] == [f"{f}_T1w.nii.gz" for f in folders]


@pytest.mark.parametrize(
    ("folders", "people", "message"),
    [
        (("sub-1", "sub-01"), ("001",), "001 can be sub-01, sub-1"),
        (("sub-01", "sub-02"), ("01", "17"), "1 of 2 participants .* have no folder: 17"),
        (("sub-A1", "sub-A2"), ("B1", "B2"), "2 of 2 participants"),
    ],
)
def test_participants_that_would_be_lost_are_an_error(
    folders: tuple[str, ...], people: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    table = bids_dataset(tmp_path, *(f"{folder}_T1w" for folder in folders), people=people)
    with pytest.raises(ValueError, match=message):
        read_table(table)


@pytest.mark.parametrize(
    ("given", "taken"),
    [("T1w", ["T1"]), ("t1w", ["T1"]), ("FLAIR", ["FLAIR"]), ("T1ce", ["T1c"])],
)
def test_modalities_of_bids_are_spelled_in_any_way(
    given: str, taken: list[str], tmp_path: Path
) -> None:
    names = ("sub-01_T1w", "sub-01_ce-gd_T1w", "sub-01_FLAIR")
    table = read_table(bids_dataset(tmp_path, *names), modalities=[given])
    assert [list(row.volumes) for row in table.rows] == [taken]
    assert table.select_modalities([given]) == tuple(taken)


def test_a_sequence_that_bids_lacks_is_named_with_those_it_has(tmp_path: Path) -> None:
    table = bids_dataset(tmp_path, "sub-01_T1w", "sub-01_FLAIR")
    with pytest.raises(ValueError, match="no image of T2 in .*; it has FLAIR, T1"):
        read_table(table, modalities=["T1w", "T2w"])
