"""Probes of encoders of several sequences and of adjacent slices."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from helpers.pretraining import write_volume_file
from nnunet_fm.cli.main import main
from nnunet_fm.encoders import build_encoder
from nnunet_fm.encoders.contract import InputSpec
from nnunet_fm.encoders.families.dinov2_keys import to_dinov2
from nnunet_fm.encoders.loading.metadata import write_encoder
from nnunet_fm_pretrain.data.preprocessing import Preprocessing
from nnunet_fm_pretrain.probing.features import patch_features, slice_features
from nnunet_fm_pretrain.probing.inputs import SliceInputs, inputs_for, probed_channels
from nnunet_fm_pretrain.probing.run import dataset_channels, encoders_and_random, probe_table

SLABS = {"sequences": ["T1", "FLAIR"], "slices": 3, "image_size": 28}


@pytest.fixture(scope="module")
def slab_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of T1 and FLAIR, three slices each, as `pretrain export` writes it."""
    encoder = build_encoder("brainfound_test14", **SLABS)
    about = {
        "card": "brainfound_test14.trained",
        "architecture": "brainfound_test14",
        "options": SLABS,
        "recipe": json.dumps({"encoder": {"layer_scale": 1.0}}),
    }
    path = tmp_path_factory.mktemp("encoder") / "slabs.safetensors"
    write_encoder(path, to_dinov2(encoder.state_dict()), about)
    return path


def write_dataset(folder: Path) -> Path:
    """Four cases of FLAIR and T1, labelled where FLAIR is bright, and a split."""
    about = {"file_ending": ".nii.gz", "channel_names": {"0": "FLAIR", "1": "T1"}}
    (folder / "labelsTr").mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(about))
    for case in range(4):
        flair = write_volume_file(folder / f"imagesTr/c{case}_0000.nii.gz", seed=case)
        write_volume_file(folder / f"imagesTr/c{case}_0001.nii.gz", seed=case + 10)
        bright = (nib.load(flair).get_fdata() > 110).astype(np.uint8)
        nib.save(nib.Nifti1Image(bright, np.eye(4)), folder / f"labelsTr/c{case}.nii.gz")
    (folder / "split.json").write_text(json.dumps([{"train": ["c0", "c1"], "val": ["c2", "c3"]}]))
    return folder


def test_tokens_are_those_of_the_slab_with_its_neighbours() -> None:
    encoder = build_encoder("brainfound_test14", init_values=1.0, **SLABS).eval()
    images = np.random.default_rng(0).standard_normal((2, 4, 28, 28)).astype(np.float32)
    rows = patch_features(encoder, images, 14)
    x = torch.from_numpy(images)
    slab = torch.cat([x[0, [1, 2, 3]], x[1, [1, 2, 3]]])[None]  # around slice 2
    first = torch.cat([x[0, [0, 0, 1]], x[1, [0, 0, 1]]])[None]
    with torch.inference_mode():
        expected = [encoder.features(i)[-1][0].flatten(1).T.numpy() for i in (first, slab)]
    assert rows.shape == (4 * 4, encoder.feature_info[-1].channels)
    assert np.allclose(rows[:4], expected[0], atol=1e-5)
    assert np.allclose(rows[8:12], expected[1], atol=1e-5)
    assert not np.allclose(rows[:4], rows[8:12], atol=1e-2)


def test_a_subject_is_the_mean_of_its_slabs() -> None:
    options = {**SLABS, "sequences": None}
    encoder = build_encoder("brainfound_test14", init_values=1.0, **options).eval()
    volume = np.random.default_rng(0).standard_normal((3, 28, 28)).astype(np.float32)
    x = torch.from_numpy(volume)
    slabs = torch.stack([x[[0, 0, 1]], x[[0, 1, 2]], x[[1, 2, 2]]])
    with torch.inference_mode():
        expected = encoder.embed(slabs).mean(0).numpy()
    assert np.allclose(slice_features(encoder, volume), expected, atol=1e-5)


def test_every_slice_of_a_subject_is_read_for_slabs(slab_file: Path) -> None:
    encoders = encoders_and_random([slab_file], 0)
    inputs = inputs_for(encoders, Preprocessing(28, 8), None)
    assert isinstance(inputs, SliceInputs)
    assert inputs.options.slices == 28


def test_channels_are_those_of_the_encoder_in_its_order() -> None:
    any_image = InputSpec(2, 14, (28, 28))
    assert probed_channels(any_image, "D", ["FLAIR", "T1"]) == [0, 1]
    named = any_image.of_modalities(["T1", "FLAIR"], subsets=True)
    assert probed_channels(named, "D", ["FLAIR", "T2", "t1"]) == [2, 0]
    one_missing = r"has T2, t1; allowed: --encoder-option modalities='\[\"T1\"\]'"
    with pytest.raises(ValueError, match=one_missing):
        probed_channels(named, "D", ["T2", "t1"])
    with pytest.raises(ValueError, match="takes T1, FLAIR, and D has T2; allowed: an encoder"):
        probed_channels(named, "D", ["T2"])


def test_channels_are_numbered_by_their_keys_not_by_their_order(tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    names = {str(n): f"other {n}" for n in range(12)} | {"2": "T1", "10": "FLAIR"}
    shuffled = {key: names[key] for key in sorted(names)}  # 0, 1, 10, 11, 2, ...
    about = {"file_ending": ".nii.gz", "channel_names": shuffled}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    spec = InputSpec(2, 14, (28, 28)).of_modalities(["T1", "FLAIR"])
    assert dataset_channels(tmp_path, spec) == ([2, 10], ".nii.gz")


def test_a_table_of_t1_is_not_probed_with_an_encoder_of_flair(
    slab_file: Path, tmp_path: Path
) -> None:
    encoders = encoders_and_random([slab_file], 0, given={"modalities": ["FLAIR"]})
    (tmp_path / "t.csv").write_text("subject_id,t1,age\ns0,0.nii.gz,20\n")
    inputs = inputs_for(encoders, Preprocessing(28, 8), None)
    with pytest.raises(ValueError, match="takes FLAIR, and the volumes of .* are T1"):
        probe_table(encoders, tmp_path / "t.csv", ["age"], inputs, None)


def test_slabs_are_probed_on_a_dataset(
    slab_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_dataset(tmp_path / "raw")
    command = ["pretrain", "probe", str(slab_file), "--seeds", "1", "--size", "56"]
    command += ["--slices", "8"]
    dataset = ["--dataset", str(raw), "--split", str(raw / "split.json")]
    assert not main([*command, *dataset, "-o", str(tmp_path / "probe.csv")])
    with (tmp_path / "probe.csv").open(newline="") as stream:
        found = [line["features"] for line in csv.DictReader(stream)]
    assert found == [
        "the same score for all",
        "pixels 14x14",
        "pixels 42x42",
        str(slab_file),
        "random, seed 0",
    ]
    capsys.readouterr()
    table = tmp_path / "table.csv"
    table.write_text("subject_id,path,age\n" + "".join(f"s{n},{n}.nii.gz,{n}\n" for n in range(6)))
    for number in range(6):
        write_volume_file(tmp_path / f"{number}.nii.gz", seed=number)
    whole = [*command, "--table", str(table), "--targets", "age"]
    assert main(whole)
    assert "takes T1, FLAIR together" in capsys.readouterr().err
    assert not main([*whole, "--encoder-option", 'modalities=["T1"]'])
    assert "random, seed 0" in capsys.readouterr().out
