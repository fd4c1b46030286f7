"""OpenMind's residual encoder: the published count, file and features."""

from pathlib import Path

import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from torch import nn

from nnunet_fm.encoders import load_encoder
from nnunet_fm.network.frozen import FrozenEncoderNetwork


def openmind(tmp_path: Path) -> tuple[ResidualEncoderUNet, Path]:
    """A small file as nnssl writes it: encoder and decoder, and its plan beside them."""
    torch.manual_seed(2)
    published = ResidualEncoderUNet(
        1, 3, [4, 6, 8], nn.Conv3d, 3, [1, 2, 2], [1, 1, 1], 2, [1, 1], True, nn.InstanceNorm3d,
        {"eps": 1e-5, "affine": True}, None, None, nn.LeakyReLU, {"inplace": True},
    )  # fmt: skip
    weights = {
        k: v for k, v in published.state_dict().items() if not k.startswith("decoder.encoder.")
    }
    torch.save(
        {"network_weights": weights, "nnssl_adaptation_plan": {"key_to_encoder": "encoder.stages"}},
        tmp_path / "f.pth",
    )
    return published.eval(), tmp_path / "f.pth"


def test_openmind_has_the_published_parameters_and_features(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = FrozenEncoderNetwork(1, 3, "openmind_resencl", decoder="pyramid")
    assert sum(p.numel() for p in network.encoder.parameters()) == 90_296_576
    assert [f.stride for f in network.encoder.feature_info] == [1, 2, 4, 8, 16, 32]
    published, file = openmind(tmp_path)
    encoder, report = load_encoder(file, "volume_testpyramid")
    assert (report.containers, report.prefixes, report.format) == (
        ["network_weights"],
        ["encoder."],
        "nnU-Net encoder",
    )
    assert set(report.dropped.values()) == {"decoder of the pretraining"}
    x = torch.randn(1, 1, 16, 12, 8)  # (z, y, x), as nnU-Net has them
    for found, expected in zip(encoder.features(x), published.encoder(x), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(encoder.embed(x), published.encoder(x)[-1].mean((2, 3, 4)))
    with pytest.raises(ValueError, match="largest stride 4"):
        encoder.features(torch.zeros(1, 1, 16, 12, 6))
