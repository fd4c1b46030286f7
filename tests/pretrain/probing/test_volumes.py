"""Probes of encoders of volumes, and how much features vary."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import find_objects

from helpers.pretraining import write_volume_file
from nnunet_fm.cli.main import main
from nnunet_fm.encoders import build_encoder
from nnunet_fm.encoders.loading.metadata import write_encoder
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.preprocessing import Preprocessing, VolumePreprocessing
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.probing.health import feature_health
from nnunet_fm_pretrain.probing.inputs import SliceInputs, VolumeInputs, inputs_for
from nnunet_fm_pretrain.probing.run import encoders_and_random
from nnunet_fm_pretrain.probing.volume_features import (
    cube_features,
    cube_labels,
    read_volume_case,
    to_multiple,
    volume_vector,
)


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of volumes of 1 mm, as `pretrain export` writes it."""
    options = {"summariser": True, "image_size": 16, "spacing": [1.0, 1.0, 1.0]}
    encoder = build_encoder("volta3d_test8", **options)
    card = {"card": "volta3d_test8.trained", "architecture": "volta3d_test8", "options": options}
    path = tmp_path_factory.mktemp("encoder") / "volta.safetensors"
    write_encoder(path, encoder.state_dict(), card)
    return path


def write_dataset(folder: Path, spacing: float = 1.0) -> Path:
    """Four cases whose label is the bright front of the head."""
    about = {"file_ending": ".nii.gz", "channel_names": {"0": "T1"}}
    (folder / "labelsTr").mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(about))
    affine = np.diag([1.0, 1.0, spacing, 1.0])
    for case in range(4):
        path = write_volume_file(folder / f"imagesTr/c{case}_0000.nii.gz", case, affine=affine)
        bright = (nib.load(path).get_fdata() > 90).astype(np.uint8)
        nib.save(nib.Nifti1Image(bright, affine), folder / f"labelsTr/c{case}.nii.gz")
    return folder


def test_a_patch_its_token_its_voxels_and_its_label_are_the_same_place() -> None:
    volume = np.zeros((1, 24, 32, 40), np.float32)
    volume[0, 0:8, 16:24, 32:40] = 1  # patch (0, 2, 4) of a grid of 3 x 4 x 5
    place = np.ravel_multi_index((0, 2, 4), (3, 4, 5))
    encoder = build_encoder("volta3d_test8").eval()
    tokens = cube_features(encoder, volume, 8)
    voxels = cube_features(None, volume, 8)
    wide = cube_features(None, volume, 8, context=24)
    assert (tokens.shape, voxels.shape, wide.shape) == ((60, 24), (60, 64), (60, 12**3))
    empty = cube_features(encoder, np.zeros_like(volume), 8)  # positions alone
    assert np.abs(tokens - empty).sum(1).argmax() == place
    assert voxels.sum(1).argmax() == place
    assert voxels[place].tolist() == [1.0] * 64
    inner = wide.reshape(60, 12, 12, 12)[:, 4:8, 4:8, 4:8]
    assert np.array_equal(inner.reshape(60, -1), voxels)
    labels = cube_labels((volume[0] > 0).astype(np.int64), 8)
    assert labels.nonzero()[0].tolist() == [place]


def test_an_encoder_gets_cubes_of_the_size_of_its_pretraining() -> None:
    import torch

    encoder = build_encoder("volta3d_test8").eval()  # pretrained on 16 x 16 x 16
    volume = np.random.default_rng(0).random((1, 32, 16, 48)).astype(np.float32)
    tokens = cube_features(encoder, volume, 8).reshape(4, 2, 6, 24)
    with torch.inference_mode():
        cube = torch.from_numpy(volume[None, :, 16:, :, 32:])
        (expected,) = encoder.features(cube)[-1].numpy()
    assert np.allclose(tokens[2:, :, 4:].transpose(3, 0, 1, 2), expected, atol=1e-5)


def test_sides_are_padded_behind() -> None:
    import torch

    x = torch.ones(1, 9, 16, 17)
    padded = to_multiple(x, 8)
    assert padded.shape == (1, 16, 16, 24)
    assert torch.equal(padded[:, :9, :16, :17], x)
    assert padded.sum() == x.sum()


def test_volumes_are_shrunk_or_embedded() -> None:
    volume = np.random.default_rng(0).random((18, 24, 20)).astype(np.float32)
    assert volume_vector(None, volume).shape == (512,)
    encoder = build_encoder("volta3d_test8").eval()
    assert volume_vector(encoder, volume).shape == (24,)


def test_cases_are_resampled_with_their_labels(tmp_path: Path) -> None:
    raw = write_dataset(tmp_path, spacing=3.0)
    images, labels = read_volume_case(raw, "c0", [0], ".nii.gz", (1.5, 2.0, 1.0), "0 to 1", 16)
    assert images.shape == (1, 48, 16, 32)  # 40 x 14 x 24 voxels, padded to cubes of 16
    assert labels.shape == (48, 16, 32)
    assert not images[:, 40:].any()
    assert not labels[:, 14:].any()
    assert images.min() == 0
    assert images.max() == 1
    inside = images[0][labels == 1].mean()
    outside = images[0][(labels == 0) & (images[0] > 0)].mean()
    assert inside > outside + 0.2


@pytest.mark.parametrize(("intensity", "near"), [("0 to 1", 0.05), ("z-score", 0.15)])
def test_a_case_has_the_values_of_a_store(intensity: str, near: float, tmp_path: Path) -> None:
    raw = write_dataset(tmp_path / "raw")
    options = VolumePreprocessing((2.0, 2.0, 2.0), intensity=intensity)
    prepare(raw, PrepareOptions(tmp_path / "store", options), processes=1)
    store = VolumeStore(tmp_path / "store")
    stored = store.read_volume(store.records[0])
    (image,), _ = read_volume_case(raw, "c0", [0], ".nii.gz", (2.0, 2.0, 2.0), intensity, 2)
    (inside,) = find_objects((image != 0).astype(int))
    found, wanted = image[inside], stored[find_objects((stored != 0).astype(int))[0]]
    assert abs(found.mean() - wanted.mean()) < near
    for share in (0.1, 0.9):  # the grids differ by half a voxel
        assert abs(np.quantile(found, share) - np.quantile(wanted, share)) < near


def test_the_background_of_scored_images_is_their_lowest_value(tmp_path: Path) -> None:
    raw = write_dataset(tmp_path)
    everywhere = "z-score of all voxels"
    images, labels = read_volume_case(raw, "c0", [0], ".nii.gz", (1.0, 1.0, 1.0), everywhere, 16)
    assert (images[0, 20:] == images.min()).all()  # 20 slices, padded to 32
    assert images.min() < -0.1
    assert not labels[20:].any()


def test_tables_and_datasets_are_probed_from_the_command_line(
    encoder_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_dataset(tmp_path / "raw")
    (tmp_path / "split.json").write_text(json.dumps([{"train": ["c0", "c1"], "val": ["c2", "c3"]}]))
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["subject_id", "path", "age"])
        for subject in range(8):
            write_volume_file(tmp_path / f"{subject}.nii.gz", seed=subject)
            writer.writerow([f"s{subject}", f"{subject}.nii.gz", 20 + subject])
    words = ["pretrain", "probe", str(encoder_file), "--seeds", "1"]
    words += ["--table", str(tmp_path / "t.csv"), "--targets", "age"]
    words += ["--dataset", str(raw), "--split", str(tmp_path / "split.json")]
    assert main([*words, "-o", str(tmp_path / "out.csv")]) == 0
    printed = capsys.readouterr().out
    for name in (str(encoder_file), "random, seed 0", "voxels 8x8x8", "voxels 24x24x24"):
        assert f"| patches of raw | AP | {name} |" in printed
    assert "| patches of raw | AP | the same score for all |" in printed
    assert "| age | MAE | voxels |" in printed
    assert "effective rank" in printed
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + 4 + 5


def test_the_encoder_decides_what_is_read(encoder_file: Path) -> None:
    slices = Preprocessing(size=32, slices=8)
    encoders = encoders_and_random([encoder_file], 0)
    found = inputs_for(encoders, slices, None)
    assert isinstance(found, VolumeInputs)
    assert (found.spacing, found.intensity) == ((1.0, 1.0, 1.0), "0 to 1")
    assert inputs_for(encoders, slices, (2.0, 2.0, 2.0)).spacing == (2.0, 2.0, 2.0)
    unknown = {"x": build_encoder("volume_test16")}
    with pytest.raises(ValueError, match="does not name the spacing .* add --spacing Z Y X"):
        inputs_for(unknown, slices, None)
    with pytest.raises(ValueError, match=r"takes .*T1.* together, .*modalities='\[\"T1\"\]'"):
        inputs_for({"x": build_encoder("volume_testbmmae")}, slices, (1.0, 1.0, 1.0))
    flat = {"x": build_encoder("dinov3_test16")}
    assert isinstance(inputs_for(flat, slices, None), SliceInputs)
    with pytest.raises(ValueError, match="allowed: 0.1 to 20 mm"):
        inputs_for(encoders, slices, (0.01, 1.0, 1.0))
    with pytest.raises(ValueError, match="--spacing is for encoders of volumes"):
        inputs_for(flat, slices, (1.0, 1.0, 1.0))


def test_the_effective_rank_counts_directions() -> None:
    rng = np.random.default_rng(0)
    free = rng.standard_normal((4000, 16))
    assert feature_health("x", "patches", free).effective_rank == pytest.approx(16, rel=0.02)
    three = rng.standard_normal((4000, 3)) @ rng.standard_normal((3, 16))
    assert 2 < feature_health("x", "patches", three).effective_rank < 3.1
    same = np.ones((100, 16)) * rng.standard_normal(16)
    collapsed = feature_health("x", "patches", same)
    assert collapsed.deviation < 1e-12
    noisy = same + 1e-6 * free[:100]
    assert feature_health("x", "patches", noisy).effective_rank < 1.1
    assert feature_health("x", "patches", 5 * free).deviation == pytest.approx(5, rel=0.05)
