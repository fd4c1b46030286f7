"""Slices decoded from maps of several resolutions: both decoders, every input, memory, stacks."""

from typing import Any

import pytest
import torch
from torch import nn

from nnunet_fm.encoders import Encoder, build_encoder
from nnunet_fm.encoders.contract import FeatureInfo
from nnunet_fm.encoders.slicewise import SliceWise
from nnunet_fm.internal.errors import InputError
from nnunet_fm.network.decoders import SlicePyramidDecoder, SlicePyramidDetailDecoder, find_decoder
from nnunet_fm.network.decoders.registry import fits
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.network.slice_stack import FrozenEncoder25DNetwork
from nnunet_fm.nnunet.recipe import Recipe, parameter_groups

ENCODER = "dinov3_convnext_test"
RESNET = "timm/resnet18"


def network(encoder: str = ENCODER, **arguments: Any) -> FrozenEncoderNetwork:
    """A network of two MRI channels and three classes, whose gates, if any, are open."""
    torch.manual_seed(0)
    built = FrozenEncoderNetwork(2, 3, encoder, **({"decoder": "detail"} | arguments))
    for name, parameter in built.decoder.named_parameters():
        if name.endswith(".gate"):
            nn.init.ones_(parameter)
    return built.train()


@pytest.mark.parametrize("decoder", ["pyramid", "detail"])
@pytest.mark.parametrize("encoder", [ENCODER, RESNET])
def test_slices_of_any_multiple_are_decoded_and_only_the_decoder_learns(
    encoder: str, decoder: str
) -> None:
    built = network(encoder, decoder=decoder)
    x = torch.randn(2, 2, 64, 96)
    logits = built(x)
    assert logits.shape == (2, 3, 64, 96)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in built.decoder.parameters())
    assert all(p.grad is None for p in built.encoder.parameters())
    assert built.fusion.weight.grad.abs().sum() > 0
    maps = built.encode(x)
    torch.testing.assert_close(built.decode(maps, x), logits)
    for changed in range(len(maps)):  # every map reaches the logits
        others = [m.flip(2) if n == changed else m for n, m in enumerate(maps)]
        assert not torch.allclose(built.decode(others, x), logits, rtol=1e-3)


def test_the_decoder_of_maps_has_a_stem_on_the_image_at_the_lacking_resolution() -> None:
    built = network(decoder="pyramid")
    assert built.decoder.stem.convs[0].conv.weight.shape == (32, 2, 3, 3)
    transposed = [m for m in built.decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.stride[0] for m in transposed] == [2, 2, 2, 4]
    full = [FeatureInfo(4, 1, "a"), FeatureInfo(8, 2, "b")]
    assert SlicePyramidDecoder(full, 3, 1, 2).stem is None
    assert not SlicePyramidDecoder.sees_image(full)


def test_levels_get_the_map_of_the_nearest_stride() -> None:
    built = network()
    assert isinstance(built.decoder, SlicePyramidDetailDecoder)
    assert len(built.decoder.gates) == 6  # 1 to 32
    assert built.decoder.taps == [0, 0, 0, 1, 2, 3]
    assert built.step == 32


@pytest.mark.parametrize("decoder", ["pyramid", "detail"])
def test_separate_channels_give_maps_side_by_side(decoder: str) -> None:
    built = network(fusion="separate", decoder=decoder).eval()
    x = torch.randn(1, 2, 64, 64)
    maps = built.encode(x)
    assert [m.shape[1] for m in maps] == [2 * info.channels for info in built.encoder.feature_info]
    alone = built.encoder.features(x[:, [1, 1, 1]])
    for both, second in zip(maps, alone, strict=True):
        torch.testing.assert_close(both[:, len(second[0]) :], second)
    assert built(x).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(("encoder", "scale"), [(ENCODER, 2), (ENCODER, 4), (RESNET, 2)])
@pytest.mark.parametrize("decoder", ["pyramid", "detail"])
def test_maps_of_enlarged_slices_are_finer(encoder: str, scale: int, decoder: str) -> None:
    built = network(encoder, decoder=decoder, encoder_scale=scale).eval()
    plain = build_encoder(encoder)
    strides = [info.stride // scale for info in plain.feature_info]
    assert [info.stride for info in built.feature_info] == strides
    x = torch.randn(1, 2, 64, 32)
    assert [64 // m.shape[2] for m in built.encode(x)] == strides
    assert built(x).shape == (1, 3, 64, 32)


def test_no_map_becomes_finer_than_the_image() -> None:
    with pytest.raises(InputError, match="encoder scale 4; allowed for this encoder: 1, 2$"):
        network(RESNET, encoder_scale=4)
    coarse = network(RESNET, taps=(2, 4), encoder_scale=4).eval()
    assert [info.stride for info in coarse.feature_info] == [2, 8]


def test_tokens_off_leaves_the_unet_alone() -> None:
    off = network(tokens="off").eval()
    off.encoder.features = None  # calling it would fail
    assert off(torch.randn(1, 2, 64, 64)).shape == (1, 3, 64, 64)
    with pytest.raises(InputError, match="tokens off with decoder pyramid, .*--decoder detail"):
        network(decoder="pyramid", tokens="off")


def test_stacks_of_slices_are_mixed_map_by_map() -> None:
    torch.manual_seed(0)
    mixing = FrozenEncoder25DNetwork(2, 3, ENCODER, decoder="pyramid", mix_slices=3).eval()
    flat = network(decoder="pyramid").eval()
    flat.load_state_dict({k: v for k, v in mixing.state_dict().items() if "mix" not in k})
    assert [len(mix.weight) for mix in mixing.mix] == [8, 16, 24, 32]
    x = torch.randn(1, 2, 4, 64, 32)
    slices = torch.stack([flat(x[:, :, z]) for z in range(4)], 2)
    torch.testing.assert_close(mixing(x), slices, rtol=1e-4, atol=1e-4)


def test_slice_wise_stacks_every_map() -> None:
    inner = build_encoder(ENCODER).eval()
    volumes, x = SliceWise(inner), torch.randn(2, 3, 4, 32, 64)
    assert volumes.kind == "pyramid"
    for tap, (found, info) in enumerate(
        zip(volumes.features(x), volumes.feature_info, strict=True)
    ):
        assert found.shape == (2, info.channels, 4, 32 // info.stride, 64 // info.stride)
        torch.testing.assert_close(found[:, :, 2], inner.features(x[:, :, 2])[tap])
    mean = torch.stack([inner.embed(x[:, :, z]) for z in range(4)]).mean(0)
    torch.testing.assert_close(volumes.embed(x), mean)


def test_decoders_of_tokens_do_not_fit() -> None:
    encoder: Encoder = build_encoder(ENCODER)
    assert [name for name in ("primus", "unetr", "pyramid", "detail") if fits(name, encoder)] == [
        "pyramid",
        "detail",
    ]
    with pytest.raises(InputError, match="primus does not fit. Allowed for it: pyramid, detail"):
        find_decoder("primus", encoder, ENCODER)


def test_every_layer_of_a_fine_tuned_encoder_has_its_rate() -> None:
    built = network(decoder="pyramid")
    built.unfreeze()
    groups = parameter_groups(built, Recipe(encoder_learning_rate=1e-4, layer_decay=0.5))
    rates = sorted({group["lr"] for group in groups[2:]})
    assert rates == pytest.approx([1e-4 * 0.5**n for n in range(5, -1, -1)])
    learned = {id(p) for group in groups for p in group["params"]}
    assert learned == {id(p) for p in built.parameters() if p.requires_grad}
