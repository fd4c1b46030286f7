"""Volumes and options that `pretrain prepare` refuses."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from helpers.dicom import write_multiframe, write_series
from helpers.tables import write_noise_volume, write_volume_file
from nnunet_fm.cli.main import main


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
    assert "1 volume made, 0 ready, 1 failed" in out.out
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
    assert "0 volumes made, 2 ready" in capsys.readouterr().out


def test_preparing_names_the_slices_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume_file(tmp_path / "in/case1/t1.nii.gz", 1)
    command = ["pretrain", "prepare", str(tmp_path / "in"), "-o", str(tmp_path / "store")]
    assert main([*command, "-np", "1"]) == 0
    out = capsys.readouterr().out
    assert "--size 256 --slices 128 " in out
    assert "(128 of the 256 axial slices of a volume are kept; --slices all keeps all)" in out
    assert "1 subject: in/case1" in out


def test_registered_without_effect_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume_file(tmp_path / "in/case1/t1.nii.gz", 1)
    assert prepare(tmp_path / "in", tmp_path / "store", "--registered") == 2
    assert "--registered would have no effect" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("labels", [(0, 1), (0, 1, 2, 4), (0, 255)])
def test_a_mask_without_a_telling_name_is_told_by_its_values(
    labels: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume_file(tmp_path / "in/case1/t1.nii.gz", 1)
    values = np.random.default_rng(0).choice(np.array(labels, np.int16), (18, 20, 22))
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "in/case1/flair.nii.gz")
    assert prepare(tmp_path / "in", tmp_path / "store") == 1
    out = capsys.readouterr()
    assert "1 volume made, 0 ready, 1 failed" in out.out
    assert "case1_FLAIR: a mask or label map, no image: its only values are 0, " in out.err
