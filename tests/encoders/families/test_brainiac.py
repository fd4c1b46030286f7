"""BrainIAC and VolTA-3D: the papers' counts, the authors' files, and a plain forward pass."""

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets.vitautoenc import ViTAutoEnc
from torch import nn
from torch.nn import functional

from helpers.monai_vit import TINY, lightning, load_vit, plain_forward, published_vit
from nnunet_fm.encoders import CARDS, build_encoder, load_encoder


def test_brainiac_has_its_papers_parameters_and_shapes() -> None:
    with torch.device("meta"):
        encoder = build_encoder("brainiac_vitb16")
        assert sum(p.numel() for p in encoder.parameters()) == 88_340_736
        features = encoder.features(torch.zeros(1, 1, 128, 128, 128))
    assert [tuple(f.shape) for f in features] == [(1, 768, 8, 8, 8)] * 4
    assert encoder.taps == (3, 6, 9, 11)


def test_features_equal_those_of_the_authors_class(tmp_path: Path) -> None:
    vit = published_vit()
    encoder = load_vit(vit, tmp_path)
    x = torch.randn(2, 1, 48, 48, 48)
    expected = plain_forward(vit, x)
    for tap, found in zip(encoder.taps, encoder.features(x), strict=True):
        torch.testing.assert_close(found, expected[tap])
    torch.testing.assert_close(encoder.embed(x), vit(x.permute(0, 1, 4, 3, 2))[0].mean(1))
    first = load_vit(vit, tmp_path, pool="first").embed(x)
    torch.testing.assert_close(first, vit(x.permute(0, 1, 4, 3, 2))[0][:, 0])


def test_other_sizes_resize_the_positions_trilinearly(tmp_path: Path) -> None:
    vit = published_vit()
    encoder = load_vit(vit, tmp_path)
    x = torch.randn(1, 1, 64, 32, 48)  # (z, y, x): a grid of 3 x 2 x 4 for the weights
    native = vit.patch_embedding.position_embeddings
    cube = native.transpose(1, 2).reshape(1, -1, 3, 3, 3)
    resized = (
        functional.interpolate(cube, (3, 2, 4), mode="trilinear", align_corners=False)
        .flatten(2)
        .transpose(1, 2)
    )
    vit.patch_embedding.position_embeddings = nn.Parameter(resized)
    expected = plain_forward(vit, x)
    for tap, found in zip(encoder.taps, encoder.features(x), strict=True):
        assert found.shape == (1, 24, 4, 2, 3)
        torch.testing.assert_close(found, expected[tap])
    with pytest.raises(ValueError, match="not a multiple of the encoder's patch size 16"):
        encoder.features(torch.zeros(1, 1, 48, 40, 48))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda s: s["state_dict"].pop("backbone.blocks.3.mlp.linear1.weight"),
            "1 tensors missing: vit.blocks.3.mlp",
        ),
        (
            lambda s: s["state_dict"].update({"backbone.blocks.9.x": torch.zeros(1)}),
            "1 tensors unexpected",
        ),
        (
            lambda s: s.update(state_dict={"backbone.conv1.weight": torch.zeros(64, 1, 7, 7, 7)}),
            "BrainIAC of 2025, a ResNet50",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(spoil: Any, message: str, tmp_path: Path) -> None:
    content = lightning(published_vit())
    spoil(content)
    torch.save(content, tmp_path / "BrainIAC.ckpt")
    with pytest.raises(ValueError, match=message):
        load_encoder(tmp_path / "BrainIAC.ckpt", "volume_test16")


def test_volta_is_read_from_an_autoencoder(tmp_path: Path) -> None:
    torch.manual_seed(4)
    published = ViTAutoEnc(1, (48,) * 3, (16,) * 3, **TINY).eval()
    torch.save(published.state_dict(), tmp_path / "volta.pt")
    encoder, report = load_encoder(tmp_path / "volta.pt", "volume_test16")
    assert "decoder of the pretraining (ViTAutoEnc)" in report.dropped.values()
    assert CARDS["volta3d_vitb16.t1"].architecture == "brainiac_vitb16"
    x = torch.randn(1, 1, 48, 48, 48)
    hidden = published(x.permute(0, 1, 4, 3, 2))[1]
    expected = hidden[2].transpose(1, 2).reshape(1, -1, 3, 3, 3).permute(0, 1, 4, 3, 2)
    torch.testing.assert_close(encoder.features(x)[0], expected)
