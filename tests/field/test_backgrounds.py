"""What the header of a volume says, of its background and orientation, is right or is refused."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from helpers.tables import write_volume_file
from nnunet_fm.cli.main import main
from nnunet_fm.data.volumes import read_volume
from nnunet_fm.features import FeatureCache, FeatureRecipe, read_table
from nnunet_fm_pretrain.data import prepare_group
from nnunet_fm_pretrain.data.slice_store import SliceStore

SHAPE = (40, 44, 36)


def prepare(folder: Path, store: Path, *words: str) -> int:
    small = ["--size", "32", "--slices", "all", "-np", "1"]
    return main(["pretrain", "prepare", str(folder), "-o", str(store), *small, *words])


def write_whole_numbers(path: Path, step: float, offset: float, kind: type = np.int16) -> None:
    """Write the ellipsoid as whole numbers n, that stand for step * n + offset."""
    write_volume_file(path, 1, SHAPE)
    values = nib.load(path).get_fdata()
    image = nib.Nifti1Image(np.rint((values - offset) / step).astype(kind), np.eye(4))
    image.header.set_slope_inter(step, offset)
    path.unlink()
    nib.save(image, path)


@pytest.mark.parametrize(
    ("step", "offset", "kind"),
    [
        (0.021182574331760406, 643.0106201171875, np.int16),
        (0.0033585107885301113, 90.35167694091797, np.int16),
        (0.02674906514585018, 801.21337890625, np.int16),
        (1.7, -3.1, np.uint16),
        (1.0, 0.4, np.int32),
        (0.5, 100.0, np.int16),
    ],
)
def test_a_background_that_scaling_rounds_is_no_brain(
    step: float, offset: float, kind: type, tmp_path: Path
) -> None:
    write_volume_file(tmp_path / "plain/case1/t1.nii", 1, SHAPE)
    (tmp_path / "scaled/case1").mkdir(parents=True)
    write_whole_numbers(tmp_path / "scaled/case1/t1.nii", step, offset, kind)
    volumes = []
    for name in ("plain", "scaled"):
        assert prepare(tmp_path / name, tmp_path / f"store_{name}", "--dataset", "d") == 0
        store = SliceStore(tmp_path / f"store_{name}")
        volumes.append(store.read_volume(store.records[0]))
    assert ((volumes[0] == 0) == (volumes[1] == 0)).all()
    assert np.abs(volumes[0] - volumes[1]).max() < 0.05 * max(1, step)


def test_values_beside_the_one_nearest_to_0_stay_as_they_are(tmp_path: Path) -> None:
    write_whole_numbers(tmp_path / "t1.nii", 0.5, 100.2)
    values = nib.load(tmp_path / "t1.nii").get_fdata(dtype=np.float32).T[:, ::-1, ::-1]
    volume, _ = read_volume(tmp_path / "t1.nii")
    assert np.unique(values[volume == 0]).tolist() == [pytest.approx(0.2, abs=1e-4)]
    assert (values == volume)[volume != 0].all()


@pytest.mark.parametrize("value", [-0.9, -1024.0, 1e-3])
def test_another_constant_background_is_refused(
    value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_volume_file(tmp_path / "in/case1/t1.nii.gz", 1, SHAPE)
    values = nib.load(file).get_fdata(dtype=np.float32)
    brain = values != 0
    nib.save(nib.Nifti1Image(np.where(brain, values, np.float32(value)), np.eye(4)), file)
    assert prepare(tmp_path / "in", tmp_path / "store") == 1
    assert f"of the voxels are {value:g}, a background that would" in capsys.readouterr().err
    nib.save(nib.Nifti1Image(brain.astype(np.uint8), np.eye(4)), tmp_path / "brain.nii.gz")
    table = tmp_path / "t.csv"
    table.write_text(
        f"subject_id,dataset,sequence,path,mask\n1,d,T1,{file},{tmp_path / 'brain.nii.gz'}\n"
    )
    assert prepare(table, tmp_path / "masked", "--skull-strip", "mask") == 0


def test_a_noisy_background_is_accepted(tmp_path: Path) -> None:
    file = write_volume_file(tmp_path / "in/case1/t1.nii.gz", 1, SHAPE)
    values = nib.load(file).get_fdata().astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
    nib.save(nib.Nifti1Image(np.maximum(values, noise), np.eye(4)), file)
    assert prepare(tmp_path / "in", tmp_path / "store") == 0


def test_what_was_made_with_an_inexact_background_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in/case1").mkdir(parents=True)
    write_whole_numbers(tmp_path / "in/case1/t1.nii", 0.5, 100.2)
    with monkeypatch.context() as before:
        before.setattr(prepare_group, "zero_is_rounded", lambda path: False)
        assert prepare(tmp_path / "in", tmp_path / "store") == 0
    capsys.readouterr()
    assert prepare(tmp_path / "in", tmp_path / "store") == 0
    assert "1 volume made, 0 ready" in capsys.readouterr().out
    assert prepare(tmp_path / "in", tmp_path / "store") == 0
    assert "0 volumes made, 1 ready" in capsys.readouterr().out


def test_its_features_are_not_those_in_the_cache(tmp_path: Path) -> None:
    write_whole_numbers(tmp_path / "scaled.nii", 0.5, 100.2)
    write_volume_file(tmp_path / "plain.nii", 1, SHAPE)
    (tmp_path / "t.csv").write_text("subject_id,T1\n1,plain.nii\n2,scaled.nii\n")
    cache = FeatureCache(tmp_path / "cache")
    recipe = FeatureRecipe("e", "0" * 64, "a", {}, (0,), "float32", {"strip": "none"})
    same = []
    for row in read_table(tmp_path / "t.csv").rows:
        before = recipe.key(cache.hashes.sha256(row.volumes["T1"]))
        same.append(cache.key_of(recipe, row, "T1") == before)
    assert same == [True, False]


def test_a_mask_of_lesions_is_no_brain_mask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    file = write_volume_file(tmp_path / "t1.nii.gz", 1, SHAPE)
    lesions = np.zeros(SHAPE, np.uint8)
    lesions[15:24, 20:21, 15:24] = 1
    lesions[15:16, 15:24, 15:24] = 1
    nib.save(nib.Nifti1Image(lesions, np.eye(4)), tmp_path / "lesions.nii.gz")
    table = tmp_path / "t.csv"
    table.write_text("subject_id,dataset,sequence,path,mask\n1,d,T1,t1.nii.gz,lesions.nii.gz\n")
    assert file.is_file()
    assert prepare(table, tmp_path / "whole") == 0
    assert "the column `mask` is unused with --skull-strip none" in caplog.text
    assert prepare(table, tmp_path / "store", "--skull-strip", "mask") == 1
    message = capsys.readouterr().err
    assert "mask lesions.nii.gz covers 0.9" in message
    assert "allowed: a brain mask of at least 2%" in message


def test_a_volume_without_orientation_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_volume_file(tmp_path / "in/case1/t1.nii.gz", 1, SHAPE)
    nib.save(nib.Nifti1Image(nib.load(file).get_fdata(dtype=np.float32), None), file)
    assert prepare(tmp_path / "in", tmp_path / "store") == 1
    assert "it stores no orientation (qform and sform codes are 0)" in capsys.readouterr().err


def test_a_volume_with_two_orientations_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_volume_file(tmp_path / "in/case1/t1.nii.gz", 1, SHAPE)
    image = nib.load(file)
    affine = image.affine.copy()
    image.set_sform(affine @ np.diag([-1.0, 1, 1, 1]), 1)
    image.set_qform(affine, 1)
    nib.save(image, file)
    assert prepare(tmp_path / "in", tmp_path / "store") == 1
    assert "it has two orientations: " in capsys.readouterr().err


def test_the_sform_counts_without_a_qform(tmp_path: Path) -> None:
    file = write_volume_file(tmp_path / "t1.nii.gz", 1, SHAPE)
    before, _ = read_volume(file)
    image = nib.load(file)
    image.set_qform(None, 0)
    image.set_sform(np.eye(4), 1)
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), None, image.header), file)
    assert nib.load(file).header["qform_code"] == 0
    assert (read_volume(file)[0] == before).all()
