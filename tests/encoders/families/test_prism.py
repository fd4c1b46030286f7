"""PRISM's encoder: MONAI's transformer with convolutions, and its branches."""

from pathlib import Path

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinTransformer
from safetensors.torch import save_file

from nnunet_fm.encoders import build_encoder, load_encoder


def test_the_maps_are_those_of_monai_with_residual_convolutions() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("prism_test12", branches=True).eval()
    sizes = (1, 12, (2,) * 3, (2,) * 3, (1,) * 4, (1, 2, 4, 8))
    published = SwinTransformer(*sizes, use_v2=True).eval()
    published.load_state_dict(encoder.swin.state_dict())
    x = torch.randn(1, 1, 64, 32, 32)
    for found, expected in zip(
        encoder.features(x), published(x.permute(0, 1, 4, 3, 2)), strict=True
    ):
        torch.testing.assert_close(found, expected.permute(0, 1, 4, 3, 2))


@pytest.mark.parametrize(
    ("name", "millions"), [("swinb48", 18.6), ("swinl96", 81.1), ("swinh192", 408.7)]
)
def test_the_sizes_of_the_paper(name: str, millions: float) -> None:
    with torch.device("meta"):
        encoder = build_encoder(f"prism_{name}")
    count = sum(p.numel() for p in encoder.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=0.1)


def test_branches_are_not_blind_to_brightness() -> None:
    """InstanceNorm, as in the authors' code, would give every image the same mean."""
    torch.manual_seed(0)
    encoder = build_encoder("prism_test12", branches=True)
    x = torch.randn(1, 192, 2, 2, 2)
    brighter = x + torch.randn(1, 192, 1, 1, 1)
    means = [encoder.branches(given).sequence.mean((2, 3, 4)) for given in (x, brighter)]
    assert (means[0] - means[1]).abs().mean() > 0.1


def test_a_file_without_branches_gives_the_mean_only(tmp_path: Path) -> None:
    plain = build_encoder("prism_test12")
    file = tmp_path / "swin.safetensors"
    save_file({k.replace("swin.", "swinViT."): v for k, v in plain.state_dict().items()}, file)
    encoder, _ = load_encoder(file, "prism_test12")
    x = torch.randn(1, 1, 32, 32, 32)
    torch.testing.assert_close(encoder.eval().embed(x), plain.eval().embed(x))
    with pytest.raises(ValueError, match="branches.anatomy.0.weight"):
        load_encoder(file, "prism_test12", branches=True, pool="anatomy")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "anatomy"}, "pool=anatomy needs weights with branches: branches=true"),
        ({"pool": "max", "branches": True}, "pool 'max'; allowed: mean, anatomy, sequence, both"),
        ({"crop_size": 0}, "crop_size 0; allowed: a whole number above 0"),
        ({"spacing": [1, 1]}, "allowed: three sizes in mm"),
        ({"image_orientation": "XYZ"}, "allowed: three letters"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_encoder("prism_test12", **options)
