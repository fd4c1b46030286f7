"""What of the image reaches the encoder: separate channels, chosen channels, enlarged slices."""

import pytest
import torch
from torch.nn import functional

from nnunet_fm.internal.errors import InputError
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.network.slice_stack import FrozenEncoder25DNetwork

ENCODER = "dinov3_test16"


def network(**arguments: object) -> FrozenEncoderNetwork:
    return FrozenEncoderNetwork(4, 3, ENCODER, **{"decoder": "detail", **arguments}).eval()


def test_separate_channels_are_encoded_one_by_one() -> None:
    separate = network(fusion="separate")
    x = torch.randn(2, 4, 64, 48)
    maps = separate.encode(x)
    assert [tuple(each.shape) for each in maps] == [(2, 4 * 32, 4, 3)] * len(maps)
    for channel in range(4):
        alone = separate.encoder.features(x[:, [channel] * 3])
        for tap, expected in enumerate(alone):
            got = maps[tap][:, 32 * channel : 32 * (channel + 1)]
            torch.testing.assert_close(got, expected)
    assert separate(x).shape == (2, 3, 64, 48)
    assert not separate.fusion.weight.requires_grad


def test_chosen_channels_reach_the_encoder_as_they_are() -> None:
    chosen = network(fusion="fixed", channels=[3, 1, 1])
    x = torch.randn(2, 4, 32, 32)
    for got, expected in zip(
        chosen.encode(x), chosen.encoder.features(x[:, [3, 1, 1]]), strict=True
    ):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("fusion", ["fixed", "separate", "learnable"])
def test_tokens_of_enlarged_slices_are_finer(fusion: str) -> None:
    enlarged = network(fusion=fusion, encoder_scale=2)
    x = torch.randn(1, 4, 48, 32)
    assert enlarged.stages == 3
    assert {info.stride for info in enlarged.feature_info} == {8}
    maps = enlarged.encode(x)
    assert all(each.shape[2:] == (6, 4) for each in maps)
    if fusion == "fixed":
        larger = functional.interpolate(x.mean(1, keepdim=True), (96, 64), mode="bilinear")
        expected = enlarged.encoder.features(larger.expand(-1, 3, -1, -1))
        torch.testing.assert_close(maps[0], expected[0])
    assert enlarged(x).shape == (1, 3, 48, 32)
    primus = network(fusion=fusion, encoder_scale=4, decoder="primus")
    assert primus(x).shape == (1, 3, 48, 32)


def test_slices_with_neighbours_take_the_same_input() -> None:
    built = FrozenEncoder25DNetwork(
        2, 3, ENCODER, decoder="detail", fusion="separate", encoder_scale=2, mix_slices=3
    ).eval()
    assert [len(mix.weight) for mix in built.mix] == [64] * 4
    assert built(torch.randn(1, 2, 5, 32, 48)).shape == (1, 3, 5, 32, 48)


@pytest.mark.parametrize(
    ("encoder", "scale", "allowed"),
    [(ENCODER, 3, "1, 2, 4"), ("dinov3_nano8", 8, "1, 2, 4"), ("volume_test16", 2, "1")],
)
def test_impossible_scales_are_refused(encoder: str, scale: int, allowed: str) -> None:
    with pytest.raises(
        InputError, match=f"encoder scale {scale}; allowed for this encoder: {allowed}$"
    ):
        FrozenEncoderNetwork(1, 2, encoder, decoder="detail", encoder_scale=scale)
