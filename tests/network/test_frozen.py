"""Fusion, frozen encoder, decoder: what learns, what is computed, what is saved."""

import inspect
import subprocess
import sys

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from helpers.networks import small
from nnunet_fm.encoders import EncoderSource, tensors_sha256
from nnunet_fm.network.decoders import DECODERS
from nnunet_fm.network.frozen import NETWORK, FrozenEncoderNetwork


def saved_names(network: nn.Module) -> set[str]:
    return {k.split(".")[0] for k in network.state_dict()}


@pytest.mark.parametrize(
    ("classes", "total", "trainable"), [(3, 110_718_735, 25_076_751), (4, 110_718_928, 25_076_944)]
)
def test_parameters_are_the_papers(classes: int, total: int, trainable: int) -> None:
    with torch.device("meta"):
        network = FrozenEncoderNetwork(4, classes, "dinov3_vitb16")
    assert sum(p.numel() for p in network.parameters()) == total
    assert sum(p.numel() for p in network.encoder.parameters()) == 85_641_984
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == trainable


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "decoder", sorted(n for n, forms in DECODERS.items() if forms[0].spatial_dims == 2)
)
def test_frozen_weights_stay_bit_identical_while_the_fusion_learns(
    precision: str, decoder: str
) -> None:
    network = small(decoder=decoder).train()
    network.use_precision(precision)
    encoder, fusion = (
        tensors_sha256(network.encoder.state_dict()),
        network.fusion.weight.detach().clone(),
    )
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(torch.randn(2, 4, 32, 48)).square().mean().backward()
    optimizer.step()
    assert tensors_sha256(network.encoder.state_dict()) == encoder
    assert not torch.equal(network.fusion.weight, fusion)
    assert all(p.grad is None for p in network.encoder.parameters())
    assert all(p.grad is not None for p in network.decoder.parameters())


def test_an_unfrozen_encoder_does_change() -> None:
    """The test above could not fail if nothing ever reached the encoder."""
    network = small()
    network.unfreeze()
    before = tensors_sha256(network.encoder.state_dict())
    network(torch.randn(1, 4, 32, 32)).square().mean().backward()
    torch.optim.SGD(network.parameters(), lr=1.0).step()
    assert tensors_sha256(network.encoder.state_dict()) != before


def test_train_mode_leaves_the_encoder_in_eval_mode() -> None:
    network = small(encoder_options={"drop_path_rate": 0.5}).train()
    assert network.decoder.training
    assert not any(m.training for m in network.encoder.modules())
    x = torch.randn(4, 4, 32, 32)
    assert torch.equal(network(x), network(x))


@pytest.mark.parametrize("name", ["dinov3_test16", "dinov2_test14", "timm/vit_tiny_patch16_224"])
def test_output_has_the_size_of_the_input(name: str) -> None:
    network = FrozenEncoderNetwork(2, 3, name)
    assert network(torch.randn(1, 2, 48, 80)).shape == (1, 3, 48, 80)
    with pytest.raises(ValueError, match="multiples of 16"):
        network(torch.randn(1, 2, 48, 81))


def test_the_bfloat16_copy_computes_what_autocast_computes() -> None:
    network, x = small().eval(), torch.randn(1, 4, 64, 64)
    network.use_precision("bfloat16")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        fast = network.encode(x)
        plain = network.encoder.features(network.fusion(x))
    assert all(torch.equal(a, b) for a, b in zip(fast, plain, strict=True))
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert network(x).dtype == torch.float32


def test_float32_is_float32_whatever_the_caller_does() -> None:
    network, x = small().eval(), torch.randn(1, 4, 32, 32)
    network.use_precision("float32")
    with torch.no_grad():
        plain = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(network(x), plain)
            network.use_precision(None)
            assert not torch.equal(network(x), plain)  # none chosen: the caller's


def test_the_bfloat16_copy_follows_the_weights() -> None:
    network, x = small().eval(), torch.randn(1, 4, 32, 32)
    network.use_precision("bfloat16")
    before = network(x)
    network.load_state_dict(
        small(taps=None).state_dict() | {"encoder.vit.norm.weight": torch.full((32,), 3.0)}
    )
    assert not torch.equal(network(x), before)


def test_gradient_checkpointing_changes_nothing_but_memory() -> None:
    x, gradients = torch.randn(1, 4, 32, 32), []
    for checkpointing in (False, True):
        network = small()
        network.use_kernels(gradient_checkpointing=checkpointing)
        network(x).square().sum().backward()
        gradients.append(network.fusion.weight.grad)
    torch.testing.assert_close(*gradients)


def test_slim_state_dicts_are_completed() -> None:
    network = small()
    with network.slim_state_dict():
        slim = network.state_dict()
    assert {k.split(".")[0] for k in slim} == {"fusion", "decoder"}
    assert saved_names(network) == {"fusion", "encoder", "decoder"}
    source = EncoderSource.resolve("dinov3_test16")
    fresh = FrozenEncoderNetwork(4, 3, **source.to_plans())
    fresh.load_state_dict(dict(slim))
    assert tensors_sha256(fresh.encoder.state_dict()) == source.sha256
    with pytest.raises(ValueError, match="name no encoder weights"):
        FrozenEncoderNetwork(4, 3, "dinov3_test16").load_state_dict(dict(slim))


def test_nnunet_builds_it_and_leaves_the_encoder_alone() -> None:
    arguments = {
        "encoder": "dinov3_test16",
        "taps": [0, 3],
        "fusion": "learnable",
        "decoder": "light",
    }
    network = get_network_from_plans(
        NETWORK, arguments, [], 4, 3, allow_init=True, deep_supervision=False
    )
    assert isinstance(network, FrozenEncoderNetwork)
    assert not hasattr(network, "initialize")
    assert float(network.encoder.vit.blocks[0].gamma_1[0]) == pytest.approx(1e-5)
    assert list(inspect.signature(FrozenEncoderNetwork.__init__).parameters)[1:3] == [
        "input_channels",
        "num_classes",
    ]


def test_torch_compile_traces_it_whole() -> None:
    """nnU-Net compiles on GPUs. In a fresh process, as shape checks cannot be traced."""
    program = """
import torch
from nnunet_fm.network.frozen import FrozenEncoderNetwork
network = FrozenEncoderNetwork(4, 3, "dinov3_test16").eval()
network.use_precision("bfloat16")
x = torch.randn(1, 4, 32, 32)
compiled = torch.compile(network, backend="eager", fullgraph=True)
with torch.no_grad():
    torch.testing.assert_close(compiled(x), network(x))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoder": "primos"}, "Did you mean primus"),
        ({"fusion": "learned"}, "learnable_then_fixed"),
        ({"fusion": "learnable_then_fixed(0)"}, "allowed"),
        ({"deep_supervision": True}, "one output"),
        ({"decoder_options": {"width": 8}}, "decoder primus takes no options"),
        ({"decoder": "detail", "decoder_options": {"widht": 8}}, "Did you mean width"),
        ({"decoder": "detail", "decoder_options": {"width": 0}}, "width=0; allowed: .* from 1"),
        ({"decoder": "detail", "decoder_options": {"levels": 99}}, "levels=99; allowed"),
        ({"tokens": "off"}, "tokens off with decoder primus.*allowed: --decoder detail"),
        ({"tokens": "no", "decoder": "detail"}, "allowed: on, off"),
        ({"decoder": "torch.nn.Identity"}, "no subclass of nnunet_fm.network.decoders.Decoder"),
        ({"decoder": "helpers.nowhere.Decoder"}, "unknown decoder.*dotted path"),
        ({"input_channels": 0}, "1 or more"),
    ],
)
def test_impossible_networks_say_what_is_allowed(arguments: dict, message: str) -> None:
    given = {"input_channels": 4, "num_classes": 3, "encoder": "dinov3_test16"} | arguments
    with pytest.raises(ValueError, match=message):
        FrozenEncoderNetwork(**given)


def test_encoders_that_cannot_be_decoded_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match="3-D, with strides .8.; decoder primus does not fit. Allowed for it: unetr, primus3d",
    ):
        FrozenEncoderNetwork(3, 2, "helpers.own_encoders.OwnVolumeEncoder")
    with pytest.raises(ValueError, match="lacks kind"):
        FrozenEncoderNetwork(3, 2, "torch.nn.Identity")


def test_a_user_s_encoder_is_named_by_its_dotted_path() -> None:
    network = FrozenEncoderNetwork(3, 2, "helpers.own_encoders.OwnEncoder")
    assert network.stages == 3
    assert network(torch.randn(1, 3, 16, 24)).shape == (1, 2, 16, 24)


def test_a_user_s_decoder_is_named_by_its_dotted_path() -> None:
    network = FrozenEncoderNetwork(
        4,
        2,
        "dinov3_test16",
        decoder="helpers.own_decoder.OwnDecoder",
        decoder_options={"depth": 2},
    )
    assert network(torch.randn(1, 4, 32, 48)).shape == (1, 2, 32, 48)
    assert len(network.decoder.hidden) == 2


@pytest.mark.parametrize("decoder", ["unetr", "primus3d", "pyramid"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_decoder_and_fusion_of_volumes_learn_and_the_encoder_does_not(
    decoder: str, precision: str
) -> None:
    encoder = "volume_testpyramid" if decoder == "pyramid" else "volume_test16"
    network = FrozenEncoderNetwork(4, 3, encoder, decoder=decoder).train()
    network.use_precision(precision)
    logits = network(torch.randn(1, 4, 32, 48, 16))
    assert logits.shape == (1, 3, 32, 48, 16)
    logits.square().mean().backward()
    assert all(p.grad is None for p in network.encoder.parameters())
    assert all(p.grad is not None for p in network.decoder.parameters())
    assert network.fusion.weight.grad.abs().sum() > 0
    assert not network.encoder.training


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        (
            "volume_test16",
            "primus",
            "3-D, with strides .16.; decoder primus does not fit. Allowed for it: unetr, primus3d",
        ),
        ("dinov3_test16", "unetr", "Allowed for it: primus, light"),
        ("volume_testpyramid", "unetr", "Allowed for it: pyramid"),
    ],
)
def test_decoders_of_another_dimension_are_refused(
    encoder: str, decoder: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        FrozenEncoderNetwork(4, 3, encoder, decoder=decoder)
