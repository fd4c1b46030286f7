"""AMAES: the published counts, file and features."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fm.encoders import load_encoder


class Amaes(nn.Module):
    """The published U-Net's encoder, as its names say it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = [1, *(width * 2**n for n in range(5))]
        for n, name in enumerate(["in_conv", *(f"encoder_conv{s}" for s in range(1, 5))]):
            self.add_module(name, nn.Module())
            for c, inside in ((1, channels[n]), (2, channels[n + 1])):
                block = nn.Module()
                block.conv = nn.Conv3d(inside, channels[n + 1], 3, padding=1)
                block.norm = nn.InstanceNorm3d(channels[n + 1], affine=True)
                getattr(self, name).add_module(f"conv{c}", block)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for name, stage in self.named_children():
            x = x if name == "in_conv" else functional.max_pool3d(x, 2)
            for block in stage.children():
                x = functional.leaky_relu(block.norm(block.conv(x)), 0.01)
            maps.append(x)
        return maps


@pytest.mark.parametrize(
    ("name", "width", "count"), [("amaes_unetb", 32, 14_134_944), ("amaes_unetxl", 64, 56_526_144)]
)
def test_amaes_is_read_from_its_own_names(
    name: str, width: int, count: int, tmp_path: Path
) -> None:
    published = Amaes(width).eval()
    state = {f"model.encoder.{k}": v for k, v in published.state_dict().items()}
    file = f"unet_{name.removeprefix('amaes_unet')}_lw_dec_fullaug.pth"
    torch.save(
        state | {"model.rec_head.decoder_conv1.conv1.conv.weight": torch.zeros(2)},
        tmp_path / file,
    )
    encoder, report = load_encoder(tmp_path / file)
    assert (report.card, report.format) == (f"{name}.brains45k", "AMAES")
    assert report.parameters == count
    x = torch.randn(1, 1, 32, 16, 48)
    for found, expected in zip(
        encoder.features(x), published(x.permute(0, 1, 4, 3, 2)), strict=True
    ):
        torch.testing.assert_close(found, expected.permute(0, 1, 4, 3, 2), rtol=1e-4, atol=1e-5)
