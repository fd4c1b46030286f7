"""Files as laboratories have them: what is taken as an image, and whose it is."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from helpers.dicom import write_multiframe, write_series
from helpers.tables import write_noise_volume, write_table, write_volume_file
from nnunet_fm.cli.main import main
from nnunet_fm.data.subject_table import read_table
from nnunet_fm.nnunet.replace_predictor import _command_predictor
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


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def bids_dataset(root: Path, *names: str, people: tuple[str, ...] = ("sub-01",)) -> Path:
    """Touch images of subjects by their names, and write their `participants.tsv`."""
    touch(root, *(f"{name.split('_')[0]}/anat/{name}" for name in names))
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
    touch(tmp_path, "case1/t1", f"case1/{name}")
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


@pytest.mark.parametrize("labels", [(0, 1), (0, 1, 2, 4), (0, 255)])
def test_a_mask_without_a_telling_name_is_told_by_its_values(
    labels: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume_file(tmp_path / "in/case1/t1.nii.gz", 1)
    values = np.random.default_rng(0).choice(np.array(labels, np.int16), (18, 20, 22))
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "in/case1/flair.nii.gz")
    assert prepare(tmp_path / "in", tmp_path / "store") == 1
    out = capsys.readouterr()
    assert "1 volumes made, 0 were ready, 1 failed" in out.out
    assert "case1_FLAIR: a mask or label map, no image: its only values are 0, " in out.err


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
    (source,) = find_sources(touch(tmp_path, path))
    assert (source.subject, source.sequence) == (subject, "T1")


def test_the_folder_of_one_subject_is_the_subject(tmp_path: Path) -> None:
    sources = find_sources(touch(tmp_path / "CASE7", "t1", "flair"), "d")
    assert [source.name for source in sources] == ["d/CASE7_FLAIR", "d/CASE7_T1"]


def test_folders_that_may_be_subjects_or_visits_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "Hamburg/P17/t1", "Hamburg/P18/t1")
    with pytest.raises(ValueError, match=r"are Hamburg/P17, Hamburg/P18 visits .*or subjects\?"):
        find_sources(tmp_path)


def nnunet_dataset(root: Path) -> Path:
    about = {"file_ending": ".nii.gz", "channel_names": {"0": "T1", "1": "FLAIR"}}
    touch(root, "imagesTr/a_0000", "imagesTr/a_0001", "labelsTr/a", "imagesTs/b_0000")
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
    touch(tmp_path / "data", "case1/t1")
    file = tmp_path / "dataset.json" if above else tmp_path / "data/dataset.json"
    file.write_text(json.dumps(content))
    assert [source.name for source in find_sources(tmp_path / "data", "d")] == ["d/case1_T1"]


def test_a_case_without_its_channel_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(nnunet_dataset(tmp_path), "imagesTr/BRATS_001", "imagesTr/c_0007")
    assert {s.subject for s in find_sources(tmp_path)} == {"a"}
    assert "BRATS_001.nii.gz, c_0007.nii.gz" in caplog.text


@pytest.mark.parametrize(
    ("spoiled", "reason"),
    [
        ("b", "not named CASE_0000.nii.gz"),
        ("b_0000 copy", "not named CASE_0000.nii.gz"),
        ("b_0001", "channels 0001 found, 0000 needed"),
    ],
)
def test_prediction_names_bad_cases_and_predicts_the_rest(
    spoiled: str, reason: str, tmp_path: Path
) -> None:
    for name in ("a_0000", spoiled, "c_0000"):
        write_noise_volume(tmp_path / f"{name}.nii.gz", 1)
    (tmp_path / "._a_0000.nii.gz").write_bytes(b"of a Mac")
    lines: list[str] = []
    problems: dict[str, str] = {}
    predictor = _command_predictor(lines.append, {}, problems)(device=torch.device("cpu"))
    predictor.dataset_json = {"file_ending": ".nii.gz", "channel_names": {"0": "T1"}}
    inputs, outputs, _ = predictor._manage_input_and_output_lists(str(tmp_path), "out")
    assert [Path(files[0]).name for files in inputs] == ["a_0000.nii.gz", "c_0000.nii.gz"]
    assert outputs == ["out/a", "out/c"]
    assert len(problems) == len(lines) == 1
    assert reason in lines[0]


def test_prediction_of_nothing_but_bad_cases_names_them_all(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_noise_volume(tmp_path / f"{name}.nii.gz", 1)
    predictor = _command_predictor(print, {}, {})(device=torch.device("cpu"))
    predictor.dataset_json = {"file_ending": ".nii.gz", "channel_names": {"0": "T1"}}
    with pytest.raises(ValueError, match=r"no case .* a\.nii\.gz: not named.* b\.nii\.gz: not"):
        predictor._manage_input_and_output_lists(str(tmp_path), "out")


def test_a_prediction_that_is_not_complete_has_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "nnunet_fm.nnunet.replace_predictor.predict_with_arguments",
        lambda argv, **options: {"b.nii.gz": "not named CASE_0000.nii.gz"},
    )
    assert main(["predict", "-i", "in", "-o", "out"]) == 1
    assert "1 cases or files were not predicted, the others were: b.nii.gz" in (
        capsys.readouterr().err
    )


def write_complex(path: Path) -> None:
    values = np.random.default_rng(0).random((18, 20, 22)) * np.exp(1j)
    nib.save(nib.Nifti1Image(values.astype(np.complex64), np.eye(4)), path)


def write_rgb(path: Path) -> None:
    values = np.zeros((18, 20, 22), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("complex", "holds complex numbers; allowed: the magnitude image"),
        ("rgb", "holds colour voxels"),
        ("multi-frame", "is multi-frame (18 images in one file)"),
        ("phase series", "holds phase, real or imaginary images"),
        ("two echoes", "has several images at one position"),
    ],
)
def test_files_of_another_kind_are_called_what_they_are(
    kind: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in/case1"
    write_volume_file(folder / "t2.nii.gz", 1)
    volume = np.random.default_rng(0).integers(1, 900, (18, 20, 22))
    if kind == "complex":
        write_complex(folder / "t1.nii.gz")
    elif kind == "rgb":
        write_rgb(folder / "t1.nii.gz")
    elif kind == "multi-frame":
        write_multiframe(folder / "T1", volume)
    elif kind == "phase series":
        write_series(folder / "T1", volume, ImageType=["ORIGINAL", "PRIMARY", "P", "ND"])
    else:
        write_series(folder / "T1", volume)
        write_series(folder / "T1", volume, first=50)
    assert prepare(tmp_path / "in", tmp_path / "store") == 1
    out = capsys.readouterr()
    assert "1 volumes made, 0 were ready, 1 failed" in out.out
    assert "case1_T1: " in out.err
    assert reason in out.err


def prepare(folder: Path, store: Path, *words: str) -> int:
    small = ["--size", "32", "--slices", "8", "-np", "1"]
    return main(["pretrain", "prepare", str(folder), "-o", str(store), *small, *words])


@pytest.mark.parametrize(
    "words",
    [
        ["--size", "48"],
        ["--slices", "4"],
        ["--slices", "all"],
        ["--seed", "1"],
        ["--uint8"],
        ["--registered"],
        ["--skull-strip", "mask"],
        ["--volumes"],
    ],
)
def test_a_store_is_not_replaced_by_one_of_other_options(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for sequence in ("t1", "t2"):
        write_volume_file(tmp_path / f"in/case1/{sequence}.nii.gz", 1 + len(sequence))
    write_noise_volume(tmp_path / "in/case1/t2.nii.gz", 1)
    write_noise_volume(tmp_path / "in/case1/t1.nii.gz", 2)
    assert prepare(tmp_path / "in", tmp_path / "store") == 0
    assert "(8 of the 32 axial slices of a volume are kept" in capsys.readouterr().out
    before = {p: p.read_bytes() for p in (tmp_path / "store").rglob("*") if p.is_file()}
    assert prepare(tmp_path / "in", tmp_path / "store", *words) == 2
    assert "give another -o" in capsys.readouterr().err
    assert before == {p: p.read_bytes() for p in (tmp_path / "store").rglob("*") if p.is_file()}
    assert prepare(tmp_path / "in", tmp_path / "store") == 0
    assert "0 volumes made, 2 were ready" in capsys.readouterr().out


def test_preparing_names_the_slices_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume_file(tmp_path / "in/case1/t1.nii.gz", 1)
    command = ["pretrain", "prepare", str(tmp_path / "in"), "-o", str(tmp_path / "store")]
    assert main([*command, "-np", "1"]) == 0
    out = capsys.readouterr().out
    assert "--size 256 --slices 128 " in out
    assert "(128 of the 256 axial slices of a volume are kept; --slices all keeps all)" in out
    assert "1 subjects: in/case1" in out


def test_registered_without_effect_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume_file(tmp_path / "in/case1/t1.nii.gz", 1)
    assert prepare(tmp_path / "in", tmp_path / "store", "--registered") == 2
    assert "--registered would have no effect" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
