"""The decoder that sees the image: a U-Net, and features through gates."""

from itertools import pairwise

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn

from helpers.networks import small
from nnunet_fm.encoders.contract import FeatureInfo
from nnunet_fm.network.decoders.detail import DetailDecoder, FeatureGate, PyramidDetailDecoder
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.network.slice_stack import FrozenEncoder25DNetwork

TOKENS = [FeatureInfo(768, 16, f"blocks.{i}") for i in (2, 5, 8, 11)]


def library_unet(levels: int, width: int) -> PlainConvUNet:
    """nnU-Net's U-Net as its planner builds it."""
    return PlainConvUNet(
        4,
        levels,
        [width * 2**n for n in range(levels)],
        nn.Conv2d,
        3,
        [1, *[2] * (levels - 1)],
        2,
        3,
        2,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )


def test_with_closed_gates_it_is_nnunets_unet_bit_for_bit() -> None:
    network = small(decoder="detail").eval()
    theirs = library_unet(5, 16).eval()
    state = network.decoder.state_dict()
    parts = {f"encoder{k[6:]}": v for k, v in state.items() if k.startswith("encode.")}
    parts |= {f"decoder{k[6:]}": v for k, v in state.items() if k.startswith("decode.")}
    found = theirs.load_state_dict(parts, strict=False)
    assert not found.unexpected_keys
    heads = ("decoder.seg_layers.", "decoder.encoder.")  # of deep supervision, and the same tensors
    assert all(key.startswith(heads) for key in found.missing_keys)
    x = torch.randn(2, 4, 32, 48)
    assert torch.equal(network(x), theirs(x))


def test_without_tokens_it_is_the_same_network_and_the_encoder_is_not_computed() -> None:
    on = small(decoder="detail").eval()
    off = small(decoder="detail", tokens="off").eval()
    own = off.decoder.state_dict()
    assert not any(key.startswith("gates.") for key in own)
    for key, value in own.items():
        assert torch.equal(value, on.decoder.state_dict()[key]), key
    off.encoder.features = None  # calling it would fail
    x = torch.randn(1, 4, 32, 32)
    assert torch.equal(off(x), on(x))
    assert not off.fusion.weight.requires_grad
    with pytest.raises(ValueError, match="no encoder to fine-tune"):
        off.unfreeze()


def test_the_first_step_opens_the_gates_and_the_second_moves_the_projections() -> None:
    network = small(decoder="detail").train()
    before = {k: v.clone() for k, v in network.decoder.gates.state_dict().items()}
    assert all((v == 0).all() for k, v in before.items() if k.endswith("gate"))
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    for moved in (("gate",), ("gate", "weight", "bias")):
        optimizer.zero_grad()
        network(torch.randn(2, 4, 32, 32)).square().mean().backward()
        optimizer.step()
        for key, value in network.decoder.gates.state_dict().items():
            assert torch.equal(value, before[key]) != key.endswith(moved), key
    assert all(p.grad is not None for p in network.decoder.parameters())


def test_gates_learn_at_a_rate_of_their_own() -> None:
    gate, x = FeatureGate(2, 8, 4, rank=3, rate=20), torch.randn(1, 8, 2, 2)
    optimizer = torch.optim.Adam([gate.gate], lr=0.01)
    skip = torch.zeros(1, 4, 2, 2)
    gate(skip, x).sum().backward()
    optimizer.step()
    expected = -0.2 * gate.gate.grad.sign().view(-1, 1, 1) * gate.expand(gate.reduce(x))
    torch.testing.assert_close(gate(skip, x), expected)


def test_features_change_the_logits_once_the_gates_are_open() -> None:
    network = small(decoder="detail").eval()
    x = torch.randn(1, 4, 32, 32)
    closed = network(x)
    for gate in network.decoder.gates:
        nn.init.ones_(gate.gate)
    assert not torch.allclose(network(x), closed)


@pytest.mark.parametrize("encoder", ["volume_test16", "volume_testpyramid"])
def test_volumes(encoder: str) -> None:
    network = FrozenEncoderNetwork(
        2, 3, encoder, decoder="detail", decoder_options={"width": 4, "levels": 5}
    ).train()
    logits = network(torch.randn(1, 2, 32, 48, 32))
    assert logits.shape == (1, 3, 32, 48, 32)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in network.decoder.parameters())
    assert all(p.grad is None for p in network.encoder.parameters())


def test_a_stack_of_slices_is_decoded_slice_by_slice() -> None:
    for tokens in ("on", "off"):
        network = FrozenEncoder25DNetwork(
            2, 3, "dinov3_test16", decoder="detail", tokens=tokens, mix_slices=3
        )
        assert network(torch.randn(1, 2, 4, 32, 32)).shape == (1, 3, 4, 32, 32)


def test_early_taps_go_to_fine_levels_and_maps_to_the_nearest_stride() -> None:
    assert DetailDecoder(TOKENS, 3, 4, 4).taps == [0, 1, 2, 2, 3]
    assert DetailDecoder(TOKENS[:1], 3, 4, 4).taps == [0] * 5
    maps = [FeatureInfo(8, stride, "stage") for stride in (4, 8, 16, 32)]
    assert PyramidDetailDecoder(maps, 3, 4, 2, width=4).taps == [0, 0, 0, 1, 2]


def test_parameters_of_the_default() -> None:
    """Two million for slices, a fifteenth of nnU-Net's own 2-D network of 33 million."""
    learned = sum(p.numel() for p in DetailDecoder((), 2, 4, 3).parameters())
    assert learned == 1_944_066
    with_gates = sum(p.numel() for p in DetailDecoder(TOKENS, 2, 4, 3).parameters())
    assert with_gates - learned == 5 * 768 * 32 + (32 + 2) * (16 + 32 + 64 + 128 + 256)


def test_the_start_does_not_depend_on_the_encoder() -> None:
    """So that two arms of a comparison differ in nothing else."""
    options = {"width": 4, "levels": 4}
    for encoders in (
        ("dinov3_test16", "dinov3_nano8"),
        ("volume_test16", "volume_testbmmae", "volume_testpyramid"),  # of one and four channels
    ):
        states = []
        for encoder in encoders:
            torch.manual_seed(5)
            network = FrozenEncoderNetwork(
                4, 3, encoder, decoder="detail", decoder_options=options, tokens="off"
            )
            states.append(network.decoder.state_dict())
        for first, second in pairwise(states):
            assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("patch", "stages", "options", "expected"),
    [
        ((128, 128), 4, {}, {"width": 16, "levels": 5, "gate_rate": 30}),
        ((128, 128), 3, {}, {"width": 16, "levels": 5, "gate_rate": 30}),
        ((24, 24), 3, {"gate_rate": 1}, {"width": 16, "levels": 3 + 1, "gate_rate": 1}),
        ((64, 64), 4, {"levels": 6, "width": 8}, {"width": 8, "levels": 6, "gate_rate": 30}),
    ],
)
def test_levels_follow_the_patch(
    patch: tuple[int, ...], stages: int, options: dict[str, int], expected: dict[str, int]
) -> None:
    assert DetailDecoder.plan_options(options, patch, stages) == expected


@pytest.mark.parametrize(
    ("patch", "options", "message"),
    [
        ((16, 16), {}, "patch 16x16 with the 5 levels .* multiples of 16 from 32 on"),
        ((48, 48), {"levels": 6}, "patch 48x48 with the 6 levels .* multiples of 32 from 64"),
        ((48, 48), {"levels": 0}, "levels=0; allowed"),
    ],
)
def test_patches_smaller_than_the_coarsest_level_are_refused(
    patch: tuple[int, ...], options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        DetailDecoder.plan_options(options, patch, 4)


def test_bfloat16_is_close_to_float32() -> None:
    network = small(decoder="detail").eval()
    for gate in network.decoder.gates:
        nn.init.normal_(gate.gate)
    x = torch.randn(1, 4, 32, 32)
    exact: Tensor = network(x)
    network.use_precision("bfloat16")
    both = torch.stack([network(x).flatten(), exact.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.99
