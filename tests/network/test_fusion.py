"""Fusion of MRI channels."""

from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.monai_vit import load_vit, plain_forward, published_vit
from helpers.networks import small
from nnunet_fm.network.frozen import FrozenEncoderNetwork


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


def test_a_fixed_fusion_equals_a_repeated_and_rescaled_stem(tmp_path: Path) -> None:
    """BrainDINO, section 4.3.1: the first weights repeated and divided by C, the bias kept."""
    vit = published_vit()
    network = FrozenEncoderNetwork(4, 3, "volume_test16", fusion="fixed", decoder="primus3d").eval()
    network.encoder.load_state_dict(load_vit(vit, tmp_path).state_dict())
    x = torch.randn(1, 4, 48, 48, 48)
    stem = vit.patch_embedding.patch_embeddings
    inflated = nn.Conv3d(4, 24, 16, 16)
    inflated.weight.data, inflated.bias.data = stem.weight.repeat(1, 4, 1, 1, 1) / 4, stem.bias.data
    vit.patch_embedding.patch_embeddings = inflated
    torch.testing.assert_close(network.encode(x)[0], plain_forward(vit, x)[2], rtol=1e-3, atol=1e-3)
