"""What every encoder declares: defaults of the base class, and layer groups."""

import pytest
import torch
from torch import Tensor

from helpers.own_encoders import OwnEncoder
from nnunet_fm.encoders import ARCHITECTURES, Encoder, build_encoder

TRANSFORMERS = {
    "dinov3_test16": 4,
    "dinov2_test14": 4,
    "brainfound_test14": 4,
    "timm/vit_tiny_patch16_224": 12,
    "volume_test16": 8,
    "volume_testbmmae": 8,
    "volume_testprimus": 4,
    "volta3d_test8": 8,
    "brainfm_test8": 8,
    "flexict_test8": 4,
    "dinov3dneuro_test16": 4,
    "3dino_test8": 4,
}
STAGED = {"dinov3_convnext_test": 4}  # networks of convolutions whose stages are told apart
TEST_ARCHITECTURES = sorted(name for name in ARCHITECTURES if "test" in name)


@pytest.mark.parametrize("name", TEST_ARCHITECTURES)
def test_every_architecture_answers_every_question(name: str) -> None:
    encoder = build_encoder(name).eval()
    assert isinstance(encoder, Encoder)
    sides = [2 * encoder.input_spec.divisor] * encoder.input_spec.spatial_dims
    if encoder.kind == "pyramid":
        sides = [max(32, side) for side in sides]
    x = torch.randn(1, encoder.in_channels, *sides)
    with torch.no_grad():
        vectors = encoder.embed_taps(x)
        last = encoder.embed(x)
    assert len(vectors) == len(encoder.embedded_layers)
    assert vectors[-1].shape == last.shape
    own = {id(p) for p in encoder.parameters()}
    assert {id(p) for p in encoder.active_parameters()} <= own
    encoder.set_gradient_checkpointing(True)
    encoder.set_fused_attention(False)
    assert encoder.gradient_checkpointing


@pytest.mark.parametrize("name", [*TEST_ARCHITECTURES, "timm/vit_tiny_patch16_224"])
def test_layer_groups_hold_every_parameter_once_from_input_to_output(name: str) -> None:
    encoder = build_encoder(name)
    groups = encoder.layer_groups()
    flat = [id(p) for group in groups for p in group]
    assert sorted(flat) == sorted(id(p) for p in encoder.parameters())
    depth = TRANSFORMERS.get(name)
    layers = (TRANSFORMERS | STAGED).get(name)
    assert len(groups) == (1 if layers is None else layers + 2)
    if depth is None:
        return
    assert encoder.depth == depth
    layer = {id(p): n for n, group in enumerate(groups) for p in group}
    for parameter_name, parameter in encoder.named_parameters():
        place = f".{parameter_name}"
        if ".blocks." in place:
            block = int(place.split(".blocks.")[1].split(".")[0])
            assert layer[id(parameter)] == block + 1, parameter_name
        elif ".norm." in place:
            assert layer[id(parameter)] == depth + 1, parameter_name
        else:
            assert layer[id(parameter)] == 0, parameter_name


def test_a_plain_module_gets_the_defaults() -> None:
    encoder = build_encoder("helpers.own_encoders.OwnEncoder")
    assert isinstance(encoder, OwnEncoder)
    assert isinstance(encoder, Encoder)
    assert set(encoder.state_dict()) == {"convolution.weight", "convolution.bias"}
    vectors: list[Tensor] = encoder.embed_taps(torch.ones(1, 1, 16, 16))
    assert encoder.embedded_layers == (0,)
    assert torch.equal(vectors[0], encoder.embed(torch.ones(1, 1, 16, 16)))


def test_a_norm_before_the_blocks_belongs_to_the_input() -> None:
    encoder = build_encoder("timm/vit_tiny_patch16_224", pre_norm=True)
    groups = encoder.layer_groups()
    names = {id(p): name for name, p in encoder.named_parameters()}
    assert {names[id(p)] for p in groups[-1]} == {"vit.norm.weight", "vit.norm.bias"}
    assert "vit.norm_pre.weight" in {names[id(p)] for p in groups[0]}


def test_a_plain_module_is_asked_by_the_names_of_version_0_1() -> None:
    encoder = build_encoder("helpers.own_encoders.FormerEncoder", taps=(0, 1))
    x = torch.ones(1, 1, 16, 16)
    assert encoder.embedded_layers == (0, 1)
    assert len(encoder.embed_taps(x)) == 2
    assert list(encoder.active_parameters()) == [encoder.convolution.weight]
    assert len(encoder.layer_groups()) == 4


@pytest.mark.parametrize(
    "name",
    ["volume_test16", "volume_testswin", "prism_test12", "volume_testpyramid", "flexict_test8"],
)
def test_gradient_checkpointing_and_fused_attention_change_nothing(name: str) -> None:
    encoder, x = build_encoder(name).eval(), torch.randn(1, 1, 32, 32, 32, requires_grad=True)
    encoder.requires_grad_(False)
    plain = encoder.features(x)[-1]
    (gradient,) = torch.autograd.grad(plain.square().sum(), x)
    encoder.set_gradient_checkpointing(True)
    if hasattr(encoder, "set_fused_attention"):
        encoder.set_fused_attention(True)
    other = encoder.features(x)[-1]
    torch.testing.assert_close(other, plain)
    torch.testing.assert_close(torch.autograd.grad(other.square().sum(), x)[0], gradient)
