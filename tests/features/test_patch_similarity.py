"""Similarity maps of encoders on one slice."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from nnunet_fm.encoders import build_encoder
from nnunet_fm.features.patch_similarity import similarity_maps, slice_similarities


def test_similarity_is_the_cosine_with_the_patch_under_the_point() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(8, 4, 6)
    maps = similarity_maps(tokens, [(0, 0), (15, 23)], (16, 24))
    assert maps.shape == (2, 16, 24)
    own = torch.nn.functional.interpolate(
        torch.cosine_similarity(tokens, tokens[:, :1, :1], dim=0)[None, None],
        size=(16, 24),
        mode="bilinear",
    )[0, 0]
    torch.testing.assert_close(maps[0], own)
    assert float(maps[0, 0, 0]) == pytest.approx(1, abs=1e-5)
    assert float(maps[1, -1, -1]) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="point 16,0 on a slice of 16 x 24 pixels"):
        similarity_maps(tokens, [(16, 0)], (16, 24))


def test_patches_of_one_tissue_are_similar() -> None:
    encoder = build_encoder("dinov3_test16")
    image = np.zeros((64, 70), np.float32)
    image[:, :32] = np.tile(
        [1.0, -1.0], (64, 16)
    )  # two textures; the last 6 columns are no whole patch
    maps = slice_similarities(encoder, image, [(8, 8)])
    assert maps.shape == (1, 64, 64)
    assert maps[0, :, :24].mean() > maps[0, :, 40:].mean()
    with pytest.raises(ValueError, match="smaller than a patch of 16"):
        slice_similarities(encoder, image[:8], [(0, 0)])


def test_the_command_line_draws_encoders_side_by_side(tmp_path: Path, run: Any) -> None:
    rng = np.random.default_rng(0)
    volume = tmp_path / "t1.nii.gz"
    nib.save(nib.Nifti1Image(rng.random((40, 44, 30)).astype(np.float32) + 1, np.eye(4)), volume)
    words = [
        "nnunet-fm",
        "analyse",
        "similarity",
        volume,
        "--encoder",
        "dinov3_test16",
        "synth_vitt16",
        "--slice",
        4,
    ]
    words += ["--shape", 8, 64, 64, "-o", tmp_path / "s.png"]
    run(*words, "--points", "30,30", "10,50")
    assert (tmp_path / "s.png").stat().st_size > 10000
    assert "'30'; allowed: ROW,COLUMN" in run(*words, "--points", "30", expect=2).stdout
    assert "point 64,3 on a slice of 64 x 64" in run(*words, "--points", "64,3", expect=2).stdout
    words[words.index("--slice") + 1] = 9
    assert "slice 9; allowed: 0 to 7 (--shape)" in run(*words, "--points", "3,3", expect=2).stdout
