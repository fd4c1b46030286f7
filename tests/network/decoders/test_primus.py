"""The 2-D Primus decoder against the BrainDINO release's, and the light one."""

import itertools

import pytest
import torch
from dynamic_network_architectures.building_blocks.patch_encode_decode import LayerNormNd
from torch import nn

from helpers.braindino_release import from_reference, to_reference
from helpers.networks import small
from nnunet_fm.encoders import FeatureInfo
from nnunet_fm.network.decoders import DECODERS


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


def test_the_light_decoder_is_light() -> None:
    info = [FeatureInfo(768, 16, f"blocks.{i}") for i in (2, 5, 8, 11)]
    sizes = {
        name: sum(p.numel() for p in DECODERS[name][0](info, 3, 4).parameters())
        for name in ("primus", "light")
    }
    assert sizes["primus"] == 25_076_739
    assert sizes["light"] < 4_000_000
