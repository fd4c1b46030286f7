"""Architectures: sizes, shapes, and DINOv3 against a plain definition."""

import pytest
import torch

from helpers.encoder_files import randomised
from helpers.plain_dinov3 import features as plain_features
from nnunet_fm.encoders import (
    ARCHITECTURES,
    CARDS,
    WeightCard,
    build_encoder,
    get_card,
    load_encoder,
    random_state,
)
from nnunet_fm.encoders.cards import bundled_weights
from nnunet_fm.encoders.families.dinov3_keys import to_dinov3

SMALL = ["dinov3_test16", "dinov3_vitt16", "dinov2_test14", "timm/vit_tiny_patch16_224"]
# Parameters in millions; DINOv3: Meta's model table (arXiv:2508.10104), DINOv2: arXiv:2304.07193.
PUBLISHED = {
    "dinov3_vits16": 21.6, "dinov3_vits16plus": 28.7, "dinov3_vitb16": 85.6, "dinov3_vitl16": 303,
    "dinov3_vith16plus": 840, "dinov2_vits14": 22, "dinov2_vitb14": 86.6, "dinov2_vitl14": 304,
    "dinov2_vitg14": 1136,
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_features_obey_the_contract(name: str) -> None:
    encoder = build_encoder(name).eval()
    patch = encoder.input_spec.divisor
    x = torch.randn(2, encoder.in_channels, 3 * patch, 4 * patch)
    maps = encoder.features(x)
    assert [tuple(m.shape) for m in maps] == [(2, f.channels, 3, 4) for f in encoder.feature_info]
    assert encoder.embed(x).shape == (2, encoder.feature_info[-1].channels)
    assert all(f.stride == patch for f in encoder.feature_info)
    with pytest.raises(ValueError, match="not a multiple"):
        encoder.features(torch.randn(1, 3, patch + 1, patch))


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_has_its_size(name: str) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name)
    millions = sum(p.numel() for p in encoder.parameters()) / 1e6
    base = name.removesuffix("_reg4")
    if base in PUBLISHED:
        assert millions == pytest.approx(PUBLISHED[base], rel=0.02)
    spec = encoder.input_spec
    assert encoder.in_channels == (3 if spec.spatial_dims == 2 else len(spec.modalities or [""]))


@pytest.mark.parametrize("name", sorted(CARDS))
def test_every_card_names_an_architecture_that_takes_its_options(name: str) -> None:
    card = CARDS[name]
    with torch.device("meta"):
        assert (
            build_encoder(card.architecture, **card.options).input_spec.spatial_dims
            == card.spatial_dims
        )
    assert card.licence
    assert card.source


@pytest.mark.parametrize(
    ("eps", "rope"), [(1e-5, "float32"), (1e-6, "bfloat16"), (1e-5, "float32_bf16_periods")]
)
@pytest.mark.parametrize("size", [(256, 256), (112, 80)])
def test_dinov3_is_bit_equal_to_the_plain_definition(
    eps: float, rope: str, size: tuple[int, int]
) -> None:
    encoder = randomised("dinov3_test16", norm_eps=eps, rope=rope)
    encoder.set_fused_attention(True)
    x = torch.randn(2, 3, *size)
    exponents = torch.arange(4, dtype=torch.float32) / 4
    periods = 100.0**exponents
    if rope != "float32":
        periods = periods.bfloat16().float()
    dtype = torch.bfloat16 if rope == "bfloat16" else torch.float32
    expected = plain_features(
        to_dinov3(encoder.state_dict()), x, encoder.taps, 2, eps, periods, dtype
    )
    for ours, plain in zip(encoder.features(x), expected, strict=True):
        assert torch.equal(ours.flatten(2).transpose(1, 2), plain[:, 5:])
    assert torch.equal(encoder.embed(x), expected[-1][:, 0])


@pytest.mark.parametrize("variant", ["qkv_bias", "swiglu"])
def test_dinov3_variants_equal_the_plain_definition(variant: str) -> None:
    options = (
        {"qkv_bias": True} if variant == "qkv_bias" else {"swiglu_mlp": True, "swiglu_align_to": 8}
    )
    encoder = randomised("dinov3_test16", **options)
    x = torch.randn(1, 3, 64, 64)
    periods = 100.0 ** (torch.arange(4, dtype=torch.float32) / 4)
    expected = plain_features(
        to_dinov3(encoder.state_dict()), x, encoder.taps, 2, 1e-5, periods, torch.float32
    )
    for ours, plain in zip(encoder.features(x), expected, strict=True):
        torch.testing.assert_close(
            ours.flatten(2).transpose(1, 2), plain[:, 5:], rtol=1e-5, atol=1e-5
        )


def test_rope_precision_matters() -> None:
    """The oracle test above could not fail if the options did nothing."""
    x = torch.randn(1, 3, 112, 112)
    maps = [randomised("dinov3_test16", rope=r).features(x)[-1] for r in ("float32", "bfloat16")]
    assert not torch.equal(*maps)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dinov3_vitb61", "Did you mean dinov3_vitb16"),
        ("braindino_vitb", "Did you mean"),
        ("dinov3_vitb16.lvd", "unknown encoder"),
    ],
)
def test_unknown_encoders_name_close_matches(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_card(name)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"architecture": "timm/vit_tiny_patch16_242"}, "Did you mean vit_tiny_patch16_224"),
        ({"architecture": "timm/xcit_nano_12_p16_224"}, "maps of stride 16; allowed: plain ViTs"),
        ({"architecture": "dinov3_test16", "taps": (2, 5)}, "from 0 to 3"),
        ({"architecture": "dinov3_test16", "taps": (2, 1)}, "increasing"),
        ({"architecture": "dinov3_test16", "rope": "float16"}, "Did you mean"),
    ],
)
def test_impossible_encoders_say_what_is_allowed(call: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_encoder(**call)


@pytest.mark.parametrize("card", [c for c in CARDS.values() if c.shipped], ids=lambda c: c.name)
def test_bundled_weights_are_small_and_trained(card: WeightCard) -> None:
    file, found = bundled_weights(card.name.split(".")[0])
    assert found == card
    assert file.stat().st_size <= 12e6
    encoder, report = load_encoder(card.name)
    assert report.about["step"] == report.about["steps"]
    random = random_state(card.architecture, 0, **card.options)
    trained = encoder.state_dict()
    moved = [k for k in random if not torch.allclose(random[k], trained[k], atol=1e-2)]
    assert any("patch_embed" in k for k in moved)
    assert any("attn.qkv" in k for k in moved)


def test_one_card_is_found_by_its_architecture_name() -> None:
    assert get_card("braindino_vitb16").options == {"norm_eps": 1e-6, "rope": "bfloat16"}
    assert get_card("dinov3_vitb16").source == ""  # an architecture, not somebody's weights
