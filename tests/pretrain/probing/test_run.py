import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from helpers.pretraining import write_volume_file
from nnunet_fm.encoders import InputSpec, build_encoder
from nnunet_fm.encoders.families.dinov3 import TRAINING_CODE
from nnunet_fm.internal.atomic_files import write_csv
from nnunet_fm_pretrain.data.preprocessing import Preprocessing
from nnunet_fm_pretrain.probing.features import patch_features, patch_labels, read_case
from nnunet_fm_pretrain.probing.inputs import SliceInputs
from nnunet_fm_pretrain.probing.linear_probes import (
    classification_probe,
    dense_probe,
    markdown,
    regression_probe,
    trivial_regression,
)
from nnunet_fm_pretrain.probing.run import (
    _is_number,
    dataset_channels,
    encoders_and_random,
    probe_patches,
    probe_table,
)

SQUARES = SliceInputs(Preprocessing(size=64, slices=64))
SMALL = SliceInputs(Preprocessing(size=32, slices=8))


def test_ridge_finds_an_effect_and_no_noise() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 5))
    y = list(50 + 10 * x[:, 0])
    tested = list(range(0, 40, 2))
    found = regression_probe("x", "age", x, y, tested)
    noise = regression_probe("noise", "age", rng.standard_normal((40, 5)), y, tested)
    trivial = trivial_regression("age", y, tested)
    assert found.value < 1 < trivial.value
    assert abs(noise.value - trivial.value) < 3
    assert found.low <= found.value <= found.high
    assert found.n == 20


def test_logistic_regression_finds_an_effect_and_no_noise() -> None:
    rng = np.random.default_rng(0)
    y = ["F", "M"] * 20
    x = rng.standard_normal((40, 5))
    x[:, 1] += [3.0 * (v == "M") for v in y]
    tested = range(10, 40)
    assert classification_probe("x", "sex", x, y, tested).value > 0.9
    noise = classification_probe("noise", "sex", rng.standard_normal((40, 5)), y, tested)
    assert 0.1 < noise.value < 0.8
    with pytest.raises(ValueError, match=r"has the values \['a'\]; allowed: two"):
        classification_probe("x", "sex", x, ["a"] * 40, tested)


def test_patches_are_labelled_by_majority_and_found_by_the_dense_probe() -> None:
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(4):
        labels = np.zeros((3, 32, 32), np.int64)
        labels[:, :16, :8] = 1
        images = rng.standard_normal((2, 3, 32, 32)).astype(np.float32)
        images[1] += 2 * labels
        cases.append((images, labels))
    truth = patch_labels(cases[0][1], 8)
    assert truth.reshape(3, 4, 4)[0].tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0] * 4, [0] * 4]
    pairs = [(patch_features(None, images, 8), patch_labels(labels, 8)) for images, labels in cases]
    assert pairs[0][0].shape == (48, 128)
    assert dense_probe("pixels", pairs[:2], pairs[2:]).value > 0.95
    shuffled = [(x, rng.permutation(y)) for x, y in pairs]
    assert dense_probe("pixels", shuffled[:2], shuffled[2:]).value < 0.5


def test_a_patch_and_its_token_are_the_same_place() -> None:
    images = np.zeros((1, 1, 64, 64), np.float32)
    images[..., 32:48, 16:32] = 5  # patch (2, 1) of a grid of 4
    encoder = build_encoder("dinov3_test16", **TRAINING_CODE).eval()
    tokens = patch_features(encoder, images, 16)
    pixels = patch_features(None, images, 16)
    wide = patch_features(None, images, 16, context=48)
    assert (tokens.shape, pixels.shape, wide.shape) == ((16, 32), (16, 256), (16, 2304))
    odd = np.abs(tokens - np.median(tokens, axis=0)).sum(1).argmax()
    assert odd == pixels.sum(1).argmax() == 2 * 4 + 1
    assert np.array_equal(wide.reshape(16, 48, 48)[:, 16:32, 16:32].reshape(16, -1), pixels)


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoder = build_encoder("dinov3_test16", **TRAINING_CODE)
    path = tmp_path_factory.mktemp("encoder") / "braindino_test16.pth"
    torch.save({"teacher": {f"backbone.{k}": v for k, v in encoder.state_dict().items()}}, path)
    return path


def test_a_table_is_probed_and_compared_with_random_weights_pixels_and_the_mean(
    tmp_path: Path, encoder_file: Path
) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["subject_id", "path", "age", "sex"])
        for subject in range(14):
            write_volume_file(tmp_path / f"{subject}.nii.gz", seed=subject)
            writer.writerow([f"s{subject}", f"{subject}.nii.gz", 20 + subject, "FM"[subject % 2]])
    (tmp_path / "held_out.txt").write_text("s1\ns2\ns3\ns4\n")
    encoders = encoders_and_random([encoder_file], 2)
    assert list(encoders) == [str(encoder_file), "random, seed 0", "random, seed 1"]
    results, health = probe_table(
        encoders, tmp_path / "t.csv", ["age", "sex"], SMALL, tmp_path / "held_out.txt"
    )
    assert [h.features for h in health] == ["pixels", *encoders]
    assert [(r.features, r.target) for r in results[:2]] == [
        ("mean of the others", "age"),
        ("pixels", "age"),
    ]
    assert len(results) == 5 + 4
    assert {r.n for r in results} == {4}
    assert f"| age | MAE | {encoder_file} |" in markdown(results)
    write_csv(results, tmp_path / "out.csv")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 10
    with pytest.raises(ValueError, match="lacks the columns weight"):
        probe_table(encoders, tmp_path / "t.csv", ["weight"], SMALL, None)
    (tmp_path / "gap.csv").write_text((tmp_path / "t.csv").read_text().replace(",20,F", ",n/a,F"))
    with pytest.raises(ValueError, match=r"lacks targets of s0; exclude"):
        probe_table(encoders, tmp_path / "gap.csv", ["age"], SMALL, None)
    (tmp_path / "held_out.txt").write_text("nobody\n")
    with pytest.raises(ValueError, match=r"no subject of .*t.csv is in"):
        probe_table(encoders, tmp_path / "t.csv", ["age"], SMALL, tmp_path / "held_out.txt")


def test_a_volume_is_stripped_by_the_mask_of_the_table(tmp_path: Path, encoder_file: Path) -> None:
    rng = np.random.default_rng(0)
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["subject_id", "path", "mask", "age"])
        for subject in range(8):
            path = write_volume_file(tmp_path / f"{subject}.nii.gz", seed=subject)
            image = nib.load(path)
            inside = np.zeros(image.shape, np.uint8)
            inside[4:-4, 4:-4, 4:-4] = 1
            noisy = np.where(inside, image.get_fdata(), 100 + 1000 * rng.random(image.shape))
            nib.save(nib.Nifti1Image(inside, image.affine), tmp_path / f"{subject}_mask.nii.gz")
            nib.save(
                nib.Nifti1Image(np.where(inside, noisy, 0), image.affine),
                tmp_path / f"{subject}_clean.nii.gz",
            )
            nib.save(nib.Nifti1Image(noisy, image.affine), path)
            writer.writerow([f"s{subject}", path.name, f"{subject}_mask.nii.gz", 20 + subject])
    clean = (tmp_path / "t.csv").read_text()
    for subject in range(8):
        clean = clean.replace(f"s{subject},{subject}.nii.gz", f"s{subject},{subject}_clean.nii.gz")
    (tmp_path / "clean.csv").write_text(clean)
    encoders = encoders_and_random([encoder_file], 0)
    stripped, asis, wanted = (
        [
            r.value
            for r in probe_table(encoders, tmp_path / name, ["age"], SMALL, None, strip).results
        ]
        for name, strip in (("t.csv", "mask"), ("t.csv", "none"), ("clean.csv", "none"))
    )
    assert stripped == pytest.approx(wanted)
    assert stripped[1:] != pytest.approx(asis[1:], rel=1e-3)


def test_files_of_different_networks_are_not_compared(tmp_path: Path, encoder_file: Path) -> None:
    other = tmp_path / "braindino_nano8.pth"
    tensors = build_encoder("dinov3_nano8", **TRAINING_CODE).state_dict()
    torch.save({"teacher": {f"backbone.{k}": v for k, v in tensors.items()}}, other)
    with pytest.raises(
        ValueError, match=r"different networks .*dinov3_test16.*dinov3_nano8.*one by one"
    ):
        encoders_and_random([encoder_file, other], 1)


def test_an_nnunet_dataset_is_probed_by_patches(tmp_path: Path, encoder_file: Path) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
    (tmp_path / "raw" / "dataset.json").write_text(
        json.dumps({"file_ending": ".nii.gz", "channel_names": {"0": "T1"}})
    )
    for case in range(4):
        path = write_volume_file(tmp_path / "raw" / "imagesTr" / f"c{case}_0000.nii.gz", seed=case)
        bright = (nib.load(path).get_fdata() > 110).astype(np.uint8)
        nib.save(
            nib.Nifti1Image(bright, np.eye(4)), tmp_path / "raw" / "labelsTr" / f"c{case}.nii.gz"
        )
    (tmp_path / "split.json").write_text(json.dumps([{"train": ["c0", "c1"], "val": ["c2", "c3"]}]))
    encoders = encoders_and_random([encoder_file], 1)
    report = probe_patches(encoders, tmp_path / "raw", tmp_path / "split.json", 0, SQUARES)
    results = report.results
    assert [r.features for r in results] == [
        "the same score for all",
        "pixels 16x16",
        "pixels 48x48",
        str(encoder_file),
        "random, seed 0",
    ]
    assert results[0].value < 0.3  # the share of the patches that are labelled
    assert results[1].value > 0.7
    assert [h.features for h in report.health] == [r.features for r in results[1:]]


@pytest.mark.parametrize("about", [None, "{}", '{"labels": {"1": "WT"}}'])
def test_a_folder_that_is_no_nnunet_dataset_is_refused(about: str | None, tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    if about:
        (tmp_path / "dataset.json").write_text(about)
    with pytest.raises(ValueError, match="is no nnU-Net dataset"):
        dataset_channels(tmp_path, InputSpec(2, 16, (64, 64)))


@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
def test_a_case_with_nan_is_not_probed(folder: str, tmp_path: Path) -> None:
    for name in ("imagesTr/c_0000", "labelsTr/c"):
        values = np.ones((18, 20, 22), np.float32)
        values[0, 0, 0] = np.nan if name.startswith(folder) else 1
        (tmp_path / name).parent.mkdir()
        nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / f"{name}.nii.gz")
    with pytest.raises(ValueError, match="1 voxels .*(NaN|nan)"):
        read_case(tmp_path, "c", [0], ".nii.gz", 32)


def test_a_subject_of_another_dataset_is_not_held_out(tmp_path: Path, encoder_file: Path) -> None:
    lines = ["subject_id,dataset,path,age"]
    for subject in range(4):
        write_volume_file(tmp_path / f"{subject}.nii.gz", seed=subject)
        lines += [f"{subject:02d},{'IXI' if subject else 'X'},{subject}.nii.gz,{20 + subject}"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    (tmp_path / "held_out.txt").write_text("IXI/00\nIXI/01\nIXI/02\n")
    encoders = encoders_and_random([encoder_file], 0)
    found = probe_table(encoders, tmp_path / "t.csv", ["age"], SMALL, tmp_path / "held_out.txt")
    assert {result.n for result in found.results} == {2}


def test_numbers_are_not_written_with_underscores() -> None:
    assert [_is_number(text) for text in ("1_0", "10", "1e3", "nan")] == [False, True, True, False]


@pytest.mark.parametrize(("labels", "word"), [([0, 0, 0], "no"), ([1, 1, 1], "every")])
def test_patches_of_one_label_are_refused(labels: list[int], word: str) -> None:
    mixed, same = np.array([0, 1, 0]), np.array(labels)
    x = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match=f"{word} patch of the training patients is at least"):
        dense_probe("x", [(x, same)], [(x, mixed)])
    with pytest.raises(ValueError, match=f"{word} patch of the test patients .*--spacing"):
        dense_probe("x", [(x, mixed)], [(x, same)])


def test_intervals_of_few_subjects_stay_in_the_range_of_their_metric() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([1] * 5 + [0] * 20)
    cases = [(rng.standard_normal((25, 2)) + 3 * n * labels[:, None], labels) for n in range(3)]
    result = dense_probe("x", cases[1:], cases)
    assert 0 <= result.low < result.value < result.high <= 1
    error = regression_probe("x", "age", rng.standard_normal((9, 2)), [1.0] * 8 + [99.0], range(9))
    assert 0 <= error.low < error.high
