"""BrainFM-MRI's encoder: absent channels are left out, and names matter."""

from typing import Any

import pytest
import torch

from nnunet_fm.encoders import build_encoder


def brainfm(**options: Any) -> Any:
    """A small encoder whose names matter, as after training."""
    torch.manual_seed(0)
    encoder = build_encoder("brainfm_test8", **options).eval()
    for name, parameter in encoder.named_parameters():
        if ".scale.weight" in name or ".shift.weight" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return encoder


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_an_absent_channel_is_as_if_it_were_not_there(value: float, fused: bool) -> None:
    x = torch.randn(2, 4, 16, 24, 16)
    x[:, 1] = value
    x[1, 3] = value  # of the second sample only
    four = brainfm()
    three = brainfm(modalities=("T1", "T2", "FLAIR"))
    two = brainfm(modalities=("T1", "T2"))
    for encoder in (four, three, two):
        encoder.set_fused_attention(fused)
    for number in range(len(four.feature_info)):
        both = four.features(x)[number]
        torch.testing.assert_close(both[:1], three.features(x[:1, [0, 2, 3]])[number])
        torch.testing.assert_close(both[1:], two.features(x[1:, [0, 2]])[number])
    both = four.embed(x)
    torch.testing.assert_close(both[:1], three.embed(x[:1, [0, 2, 3]]))
    torch.testing.assert_close(both[1:], two.embed(x[1:, [0, 2]]))


def test_an_empty_patch_has_features() -> None:
    x = torch.randn(2, 4, 16, 16, 16)
    x[0] = 0
    maps = brainfm().features(x)
    assert all(bool(torch.isfinite(m).all()) for m in maps)
    torch.testing.assert_close(maps[-1][1:], brainfm().features(x[1:])[-1])


def test_the_order_of_channels_does_not_matter_but_their_names_do() -> None:
    x = torch.randn(1, 2, 16, 16, 16)
    plain = brainfm(modalities=("T1", "FLAIR")).embed(x)
    turned = brainfm(modalities=("FLAIR", "T1")).embed(x[:, [1, 0]])
    torch.testing.assert_close(plain, turned)
    swapped = brainfm(modalities=("FLAIR", "T1")).embed(x)
    assert not torch.allclose(plain, swapped, atol=1e-3)


def test_any_name_has_hashed_text_but_only_known_ones_have_a_row() -> None:
    x = torch.randn(1, 1, 16, 16, 16)
    known, new = (brainfm(modalities=(name,)).embed(x) for name in ("T1", "ASL perfusion"))
    assert not torch.allclose(known, new)
    spelled = brainfm(modalities=("t1-weighted",)).embed(x)
    torch.testing.assert_close(known, spelled)
    with pytest.raises(ValueError, match="unknown modality 'PD'. Allowed: FLAIR, T1"):
        brainfm(modalities=("PD",), text="table")


def test_images_of_another_orientation_are_turned() -> None:
    x = torch.randn(1, 4, 16, 24, 16)
    plain = brainfm().features(x)[-1]
    flipped = brainfm(image_orientation="RAS").features(x.flip(3, 4))[-1]  # x and y
    torch.testing.assert_close(flipped.flip(3, 4), plain)


def test_positions_are_resized_to_other_grids() -> None:
    encoder = brainfm()
    axis = torch.arange(8.0).view(1, 8, 1).expand(1, 8, 24)
    encoder.vit.positions.data.copy_(axis)
    larger = encoder.vit.positions_of((4, 2, 2))
    assert larger.shape == (1, 16, 24)
    assert larger[0, :, 0].tolist() == [0, 1, 2, 3, 1, 2, 3, 4, 3, 4, 5, 6, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("T1", "T1w")}, "each once"),
        ({"modalities": ()}, "one name or more"),
        ({"modalities": ("T1", " ")}, "one name or more"),
        ({"names": ("T1", "T1")}, "each once"),
        ({"image_size": 20}, "allowed: a multiple of 8"),
        ({"spacing": (1, -1, 1)}, "three sizes in mm"),
        ({"text": "bert"}, "allowed: hash, table, learned"),
        ({"image_orientation": "XYZ"}, "allowed: three letters"),
        ({"taps": (9,)}, "0 to 7"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        brainfm(**options)


def test_scales_keep_their_digits_in_bfloat16() -> None:
    encoder = brainfm()
    norm = encoder.vit.blocks[0].norm1
    torch.nn.init.normal_(norm.scale.weight, std=0.001)
    torch.nn.init.zeros_(norm.shift.weight)  # it would hide what the scale loses
    text = encoder.text.of(["T1"])[None]
    x, slots = torch.randn(1, 6, 24), torch.zeros(1, 6, dtype=torch.long)
    exact = norm(x, text, slots)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = norm(x, text, slots)
    plain = torch.nn.functional.layer_norm(x, (24,))
    assert (rounded - exact).abs().max() < 0.02 * (exact - plain).abs().max()
