"""Fusion, frozen encoder, decoder: what learns, what is computed, what is saved."""

import inspect
import itertools
import subprocess
import sys

import pytest
import torch
from dynamic_network_architectures.building_blocks.patch_encode_decode import LayerNormNd
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from helpers.braindino_release import from_reference, to_reference
from helpers.networks import small
from nnunet_fm.encoders import EncoderSource, FeatureInfo, tensors_sha256
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
@pytest.mark.parametrize("decoder", sorted(n for n, d in DECODERS.items() if d.spatial_dims == 2))
def test_frozen_means_bit_identical_while_the_fusion_moves(precision: str, decoder: str) -> None:
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


def test_a_fixed_fusion_needs_no_graph_through_the_encoder() -> None:
    def graph_reaches_decoder(fusion: str) -> bool:
        network, seen = small(fusion=fusion), []
        network.decoder.register_forward_pre_hook(
            lambda _, given: seen.append(given[0][0].requires_grad)
        )
        assert network(torch.randn(1, 4, 64, 64)).requires_grad
        return seen == [True]

    assert graph_reaches_decoder("learnable")
    assert not graph_reaches_decoder("fixed")
    assert not small(fusion="fixed").fusion.weight.requires_grad
    assert small(fusion="learnable_then_fixed(3)").schedule.learns(2)
    assert not small(fusion="learnable_then_fixed(3)").schedule.learns(3)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_fusion_averages_any_number_of_channels(channels: int) -> None:
    network = FrozenEncoderNetwork(channels, 2, "dinov3_test16")
    x = torch.randn(1, channels, 32, 32)
    torch.testing.assert_close(network.fusion(x), x.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    assert network(x).shape == (1, 2, 32, 32)


@pytest.mark.parametrize("name", ["dinov3_test16", "dinov2_test14", "timm/vit_tiny_patch16_224"])
def test_output_has_the_size_of_the_input(name: str) -> None:
    network = FrozenEncoderNetwork(2, 3, name)
    assert network(torch.randn(1, 2, 48, 80)).shape == (1, 3, 48, 80)
    with pytest.raises(ValueError, match="multiples of 16"):
        network(torch.randn(1, 2, 48, 81))


def convolutions(widths: list[int], classes: int) -> nn.Sequential:
    """The release's decoder, as convolutions over images."""
    stages = [
        nn.Sequential(nn.ConvTranspose2d(i, o, 2, 2), LayerNormNd(o), nn.GELU())
        for i, o in itertools.pairwise(widths)
    ]
    return nn.Sequential(*stages, nn.Conv2d(widths[-1], classes, 1))


def test_token_decoder_equals_convolutional_decoder_forward_and_backward() -> None:
    network = small()
    widths = [128 >> i for i in range(5)]
    plain = convolutions(widths, 3)
    state = to_reference(network.state_dict())
    prefix = "up_projection.decode."
    plain.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    maps = [torch.randn(2, 32, 3, 5, requires_grad=True) for _ in range(4)]
    ours, theirs = network.decoder(maps), plain(torch.cat(maps, 1))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    target = torch.randn_like(ours)
    gradients = [
        torch.autograd.grad(out, maps, target, retain_graph=True) for out in (ours, theirs)
    ]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_reference_names_go_both_ways() -> None:
    state = small().state_dict()
    reference = to_reference(state)
    names = {k.split(".")[0] for k in reference}
    assert names == {"to3", "dino_encoder", "up_projection"}
    assert reference["up_projection.decode.0.0.weight"].shape == (128, 64, 2, 2)
    assert reference["dino_encoder.storage_tokens"].shape == (1, 4, 32)
    back = from_reference(reference)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[k], state[k]) for k in state)
    with pytest.raises(ValueError, match="allowed: decoder primus"):
        to_reference(small(decoder="light").state_dict())
    with pytest.raises(ValueError, match="allowed: to3"):
        from_reference({"seg_head.weight": torch.ones(1)})


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


def test_the_light_decoder_is_light() -> None:
    info = [FeatureInfo(768, 16, f"blocks.{i}") for i in (2, 5, 8, 11)]
    slices = {name: kind for name, kind in DECODERS.items() if kind.spatial_dims == 2}
    sizes = {
        name: sum(p.numel() for p in kind(info, 3, 4).parameters()) for name, kind in slices.items()
    }
    assert sizes["primus"] == 25_076_739
    assert sizes["light"] < 4_000_000


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


def test_an_encoder_of_ones_own_is_named_by_its_path() -> None:
    network = FrozenEncoderNetwork(3, 2, "helpers.own_encoders.OwnEncoder")
    assert network.stages == 3
    assert network(torch.randn(1, 3, 16, 24)).shape == (1, 2, 16, 24)
