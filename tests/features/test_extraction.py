import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from helpers.tables import SHAPE, write_table, write_volume_file
from nnunet_fm.data.perturbations import Perturbation
from nnunet_fm.data.preprocessing import preprocess_volume
from nnunet_fm.data.volumes import read_volume
from nnunet_fm.encoders import FeatureInfo, InputSpec
from nnunet_fm.features import FeatureCache, read_table
from nnunet_fm.features.extraction import ExtractedVolume, extract
from nnunet_fm.features.opening import open_encoder


def opened(**choice: Any) -> Any:
    return open_encoder(
        "dinov3_test16", **{"layers": (1, 3), "shape": SHAPE, "precision": "float32"} | choice
    )


def extracted(table_file: Path, cache: FeatureCache, **choice: Any) -> list[ExtractedVolume]:
    how = {k: choice.pop(k) for k in ("batch", "part") if k in choice}
    return extract(read_table(table_file), *opened(**choice), cache, processes=0, **how)


def test_features_are_those_of_the_encoder_on_each_slice(table_file: Path, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache")
    outcomes = extracted(table_file, cache, batch=5)  # batches run across volumes of 6 slices
    assert [(o.modality, o.cached, o.reason) for o in outcomes] == [("T1", False, "")] + [
        (m, False, "") for _ in range(3) for m in ("FLAIR", "T1")
    ]
    encoder, recipe = opened()
    assert recipe.layers == (1, 3)
    table = read_table(table_file)
    for row in table.rows:
        for modality, path in row.volumes.items():
            volume, _ = read_volume(path)
            x = torch.from_numpy(preprocess_volume(volume, volume != 0, SHAPE)).half().float()
            with torch.no_grad():
                expected = encoder.embed(x[:, None].expand(-1, 3, -1, -1))
            found = cache.read(recipe, cache.key_of(recipe, row, modality), ("cls/3", "pooled"))
            assert found is not None
            torch.testing.assert_close(
                torch.from_numpy(found["cls/3"]), expected.half(), rtol=2e-3, atol=2e-3
            )
            torch.testing.assert_close(
                torch.from_numpy(found["pooled"][1]), expected.mean(0), rtol=1e-5, atol=1e-5
            )


def test_perturbed_volumes_have_their_own_entries(table_file: Path, tmp_path: Path) -> None:
    cache, change = FeatureCache(tmp_path / "cache"), Perturbation("gamma", 2.0)
    extracted(table_file, cache)
    assert all(
        o.cached for o in extracted(table_file, cache, perturbation=Perturbation("gibbs", 0.0))
    )
    assert not any(o.cached or o.reason for o in extracted(table_file, cache, perturbation=change))
    encoder, recipe = opened(perturbation=change)
    assert cache.perturbed(cache.recipe()) == [recipe]
    row = read_table(table_file).rows[0]
    volume, _ = read_volume(row.volumes["T1"])
    x = preprocess_volume(change(volume, volume != 0), volume != 0, SHAPE)
    with torch.no_grad():
        expected = encoder.embed(
            torch.from_numpy(x).half().float()[:, None].expand(-1, 3, -1, -1)
        ).mean(0)
    found = cache.read(recipe, cache.key_of(recipe, row, "T1"))
    assert found is not None
    torch.testing.assert_close(torch.from_numpy(found["pooled"][1]), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(KeyError, match="no cls/3 in the cache's entry; it keeps: pooled"):
        cache.read(recipe, cache.key_of(recipe, row, "T1"), ("cls/3",))


def test_taps_are_embedded_as_a_whole_encoder_ends() -> None:
    encoder, _ = opened(layers=(0, 3))
    shorter, _ = opened(layers=(0,))
    x = torch.randn(2, 3, 32, 32)
    first, last = encoder.embed_taps(x)
    torch.testing.assert_close(last, encoder.embed(x))
    shorter.vit.blocks = shorter.vit.blocks[:1]
    torch.testing.assert_close(first, shorter.embed(x))


def test_a_second_run_does_no_encoder_work(
    table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path / "cache")
    extracted(table_file, cache)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("t.csv", "0", "1", "2", "3", "cache"):
        shutil.move(tmp_path / name, moved / name)
    monkeypatch.setattr("nnunet_fm.features.extraction.embed_volumes", lambda *_: iter(()))
    assert all(o.cached for o in extracted(moved / "t.csv", FeatureCache(moved / "cache")))
    with pytest.raises(KeyError):
        extracted(moved / "t.csv", FeatureCache(moved / "cache"), layers=(3,))


def test_a_bad_volume_is_reported_and_the_others_are_extracted(
    table_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "1/t1.nii.gz").write_bytes(b"nothing")
    (tmp_path / "2/t1.nii.gz").unlink()
    cache = FeatureCache(tmp_path / "cache")
    outcomes = extracted(table_file, cache)
    failed = {o.subject: o.reason for o in outcomes if o.reason}
    assert list(failed) == ["Sübject 1", "Sübject 2"]
    assert "not a readable NIfTI" in failed["Sübject 1"]
    assert "No such file" in failed["Sübject 2"]
    assert sum(not o.reason for o in outcomes) == 5
    write_volume_file(tmp_path / "1/t1.nii.gz", 70)
    write_volume_file(tmp_path / "2/t1.nii.gz", 71)
    again = extracted(table_file, cache)
    assert [o.cached for o in again].count(False) == 2
    assert not any(o.reason for o in again)


def test_features_that_overflow_are_not_cached(table_file: Path, tmp_path: Path) -> None:
    cache, (encoder, recipe) = FeatureCache(tmp_path / "cache"), opened()
    encoder.vit.norm.weight.data[0] = torch.inf
    outcomes = extract(read_table(table_file), encoder, recipe, cache, processes=0)
    assert all("not finite" in o.reason for o in outcomes)
    assert cache.entries(recipe) == []


def test_parts_share_the_volumes_and_copies_are_embedded_once(
    table_file: Path, tmp_path: Path
) -> None:
    shutil.copy(tmp_path / "2/t1.nii.gz", tmp_path / "3/t1.nii.gz")
    cache = FeatureCache(tmp_path / "cache")
    parts = [extracted(table_file, cache, part=(n, 2)) for n in range(2)]
    assert [len(p) for p in parts] == [4, 3]
    assert len({(o.subject, o.modality) for p in parts for o in p}) == 7
    assert len(cache.entries(cache.recipe())) == 6
    with pytest.raises(ValueError, match="part 2 of 2; allowed: --part-id from 0 to 1"):
        extracted(table_file, cache, part=(2, 2))


def test_the_matrix_is_the_mean_over_the_modalities_that_are_there(
    table_file: Path, tmp_path: Path
) -> None:
    cache, table = FeatureCache(tmp_path / "cache"), read_table(table_file)
    extracted(table_file, cache)
    names, both = cache.matrix(table)
    assert names == [f"Sübject {n}" for n in range(4)]
    assert (both.shape, both.dtype) == ((4, 32), np.float32)
    _, t1 = cache.matrix(table, modalities=["T1"])
    with_flair, flair = cache.matrix(table, layer=3, modalities=["FLAIR"])
    assert with_flair == names[1:]
    assert np.array_equal(both[0], t1[0])
    assert np.allclose(both[1:], (t1[1:] + flair) / 2, atol=1e-6)
    assert not np.allclose(cache.matrix(table, layer=1)[1], both)
    with pytest.raises(ValueError, match=r"no layer 2 of dinov3_test16_random0; allowed: 1, 3"):
        cache.matrix(table, layer=2)
    with pytest.raises(ValueError, match="unknown modality T2; the table has T1, FLAIR"):
        cache.matrix(table, modalities=["T2"])
    cache.path(cache.recipe(), cache.key_of(cache.recipe(), table.rows[2], "T1")).unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"1 volume of .* missing from the cache: Sübject 2 T1; type: .* extract",
    ):
        cache.matrix(table)


def test_a_mask_counts_only_where_it_strips(tmp_path: Path) -> None:
    volume = write_volume_file(tmp_path / "a.nii.gz", 0)
    rows = []
    for number, margin in enumerate((4, 6)):
        inside = np.zeros((20, 24, 18), np.uint8)
        inside[margin:-margin, margin:-margin, 4:-4] = 1
        nib.save(nib.Nifti1Image(inside, np.eye(4)), tmp_path / f"mask{number}.nii.gz")
        rows.append({"subject_id": number, "T1": volume.name, "mask": f"mask{number}.nii.gz"})
    table = write_table(tmp_path / "t.csv", rows)
    cache = FeatureCache(tmp_path / "cache")
    assert len({o.key for o in extracted(table, cache)}) == 1
    assert len({o.key for o in extracted(table, cache, strip="mask")}) == 2


class Volumes(nn.Module):
    """A 3-D encoder without layers."""

    kind, in_channels = "pyramid", 1
    input_spec = InputSpec(spatial_dims=3, divisor=4, native_size=(8, 8, 8))
    feature_info = (FeatureInfo(channels=8, stride=4, name="body"),)

    def __init__(self, taps: Any = None) -> None:
        super().__init__()
        self.body = nn.Conv3d(1, 8, 4, stride=4)

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.body(x)]

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).mean((2, 3, 4))


def test_a_3d_encoder_is_extracted_like_a_2d_one(table_file: Path, tmp_path: Path) -> None:
    encoder, recipe = open_encoder(f"{__name__}.Volumes", shape=(10, 16, 16), precision="float32")
    assert recipe.preprocessing["shape"] == [8, 16, 16]
    cache = FeatureCache(tmp_path / "cache")
    outcomes = extract(read_table(table_file), encoder, recipe, cache, batch=2, processes=0)
    assert not any(o.reason for o in outcomes)
    row = read_table(table_file).rows[0]
    volume, _ = read_volume(row.volumes["T1"])
    x = torch.from_numpy(preprocess_volume(volume, volume != 0, (8, 16, 16))).half().float()
    _, matrix = cache.matrix(read_table(table_file))
    torch.testing.assert_close(torch.from_numpy(matrix[0]), encoder.embed(x[None, None])[0])


def test_the_default_shape_holds_a_head_at_the_spacing() -> None:
    slices = opened(shape=None, spacing=(4.0, 1.0, 1.5))[1]  # patches of 16 pixels
    assert slices.preprocessing["shape"] == [48, 256, 176]
    assert slices.preprocessing["spacing"] == [4.0, 1.0, 1.5]
    _, volumes = open_encoder(f"{__name__}.Volumes", shape=None, spacing=(4.0, 4.0, 5.0))
    assert volumes.preprocessing["shape"] == [48, 64, 52]  # patches of 4 voxels
    assert opened(shape=None)[1].preprocessing["shape"] == [128, 256, 256]


def test_precision_and_random_seeds_are_other_features(table_file: Path, tmp_path: Path) -> None:
    recipes = {
        opened(**c)[1].identity()
        for c in ({}, {"precision": "bfloat16"}, {"seed": 1}, {"strip": "mask"})
    }
    assert len(recipes) == 4
    assert opened()[1].name == "dinov3_test16_random0"
    with pytest.raises(ValueError, match="precision 'int8'; allowed: bfloat16, float32"):
        opened(precision="int8")
    cache = FeatureCache(tmp_path / "cache")
    extracted(table_file, cache, precision="bfloat16")
    extracted(table_file, cache)
    _, rough = cache.matrix(
        read_table(table_file), encoder=opened(precision="bfloat16")[1].identity()
    )
    _, exact = cache.matrix(read_table(table_file), encoder=opened()[1].identity())
    assert np.abs(rough - exact).max() < 0.05
    assert not np.array_equal(rough, exact)


def test_a_read_only_cache_is_read(
    table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path / "cache")
    extracted(table_file, cache)
    entry = cache.entries(cache.recipe())[0]
    entry.write_bytes(entry.read_bytes()[:-1])
    (tmp_path / "cache/hashes.sqlite").unlink()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr("os.replace", refuse)  # also of Path.replace
    monkeypatch.setattr("nnunet_fm.features.content_hashes.sqlite3.connect", refuse)
    again = FeatureCache(tmp_path / "cache")
    recipe, table = again.recipe(), read_table(table_file)
    found = [again.read(recipe, again.key_of(recipe, r, m)) for r in table.rows for m in r.volumes]
    assert sum(f is None for f in found) == 1
    with pytest.raises(OSError, match=r"could not write .*read-only file system"):
        extract(table, *opened(), again, processes=0)


def test_the_command_line_extracts_lists_verifies_and_collects(
    table_file: Path, tmp_path: Path, run: Any
) -> None:
    cache = tmp_path / "cache"
    words = (
        "nnunet-fm",
        "features",
        "extract",
        table_file,
        "--encoder",
        "dinov3_test16",
        "--cache",
        cache,
    )
    run(*words, "--spacing", 2, 4, 4)
    listed = run("nnunet-fm", "features", "list", "--cache", cache).stdout.splitlines()
    assert listed[1].split()[3] == "96x64x64"
    shutil.rmtree(cache)
    words += ("--shape", 6, 32, 32, "--layers", "1,3")
    (tmp_path / "1/t1.nii.gz").write_bytes(b"nothing")
    output = run(*words, expect=1).stdout
    assert "6 volumes extracted, 0 already cached, 1 failed" in output
    failures = next(cache.glob("failures*.csv"))
    assert "Sübject 1" in failures.read_text()
    write_volume_file(tmp_path / "1/t1.nii.gz", 70)
    assert "1 volume extracted, 6 already cached, 0 failed" in run(*words).stdout
    assert not failures.exists()
    listed = run("nnunet-fm", "features", "list", "--cache", cache).stdout.splitlines()
    assert listed[1].split()[0] == "dinov3_test16_random0"
    assert listed[1].split()[2:] == ["1,3", "6x32x32", "7"]
    entry = next(cache.glob("*/??/*.safetensors"))
    content = bytearray(entry.read_bytes())
    content[-1] ^= 4
    entry.write_bytes(content)
    assert (
        "7 volumes, 1 damaged; rerun features extract"
        in run("nnunet-fm", "features", "verify", "--cache", cache, expect=1).stdout
    )
    rows = table_file.read_text().splitlines()
    table_file.write_text("\n".join(rows[:3]) + "\n")
    kept = run("nnunet-fm", "features", "gc", "--cache", cache, "--keep", table_file).stdout
    assert "removed 4 files" in kept
    assert (
        "is not a feature cache"
        in run("nnunet-fm", "features", "list", "--cache", tmp_path / "no", expect=2).stdout
    )


def test_encoder_choices_reach_the_recipe(tmp_path: Path) -> None:
    _, recipe = open_encoder("dinov2_test14", shape=(6, 32, 32))
    assert recipe.preprocessing["shape"] == [6, 28, 28]
    assert recipe.layers == (0, 1, 2, 3)
    assert replace(recipe, name="x").identity() == recipe.identity()
    with pytest.raises(ValueError, match="increasing block numbers from 0 to 3"):
        opened(layers=(4,))
    with pytest.raises(ValueError, match=r"one vector per input, .* remove --layers"):
        open_encoder("volume_testpyramid", layers=(1,))
