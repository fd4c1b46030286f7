"""The decoder of feature pyramids."""

import torch

from nnunet_fm.encoders import build_encoder
from nnunet_fm.network.frozen import FrozenEncoderNetwork


def test_a_pyramid_without_a_full_resolution_map_gets_a_stem() -> None:
    network = FrozenEncoderNetwork(2, 3, "volume_testpyramid", taps=[1, 2], decoder="pyramid")
    logits = network(torch.randn(1, 2, 16, 12, 8))
    assert logits.shape == (1, 3, 16, 12, 8)
    logits.square().mean().backward()
    assert network.decoder.stem.convs[0].conv.weight.grad.abs().sum() > 0
    used = sum(p.numel() for p in network.encoder.active_parameters())
    assert used == sum(p.numel() for p in network.encoder.parameters())
    first = build_encoder("volume_testpyramid", [0])
    assert sum(p.numel() for p in first.active_parameters()) < used
