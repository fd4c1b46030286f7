"""MONAI's 3-D ViT as BrainIAC's authors publish it, small, and its plain forward pass."""

from pathlib import Path
from typing import Any

import torch
from monai.networks.nets.vit import ViT
from torch import Tensor, nn

from nnunet_fm.encoders import load_encoder

TINY = {"hidden_size": 24, "mlp_dim": 48, "num_heads": 2, "num_layers": 8}


def published_vit(side: int = 48, **arguments: Any) -> ViT:
    """What BrainIAC's authors build, small, with weights of ordinary size."""
    torch.manual_seed(1)
    vit = ViT(1, (side,) * 3, (16,) * 3, **TINY, **arguments).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.normal_(0, 0.2)
    return vit


def lightning(vit: nn.Module) -> dict[str, Any]:
    """The content of their file: below `state_dict`, with a projector and the backbone."""
    state = {f"backbone.{k}": v for k, v in vit.state_dict().items()}
    return {"epoch": 3, "state_dict": state | {"projector.0.weight": torch.zeros(3, 3)}}


def load_vit(vit: ViT, tmp_path: Path, **options: Any) -> Any:
    torch.save(lightning(vit), tmp_path / "BrainIAC.ckpt")
    encoder, report = load_encoder(tmp_path / "BrainIAC.ckpt", "volume_test16", **options)
    assert (report.containers, report.prefixes, report.format) == (
        ["state_dict"],
        ["backbone."],
        "MONAI ViT",
    )
    assert not report.missing
    assert set(report.dropped.values()) == {
        "cross attention, not used in a plain ViT",
        "pretraining head",
    }
    return encoder


def plain_forward(vit: ViT, x: Tensor) -> list[Tensor]:
    """The authors' forward on (x, y, z); feature maps in nnU-Net's order."""
    last, hidden = vit(x.permute(0, 1, 4, 3, 2))
    grid = [side // 16 for side in reversed(x.shape[2:])]
    tokens = [*hidden[:-1], last]
    return [t.transpose(1, 2).reshape(len(x), -1, *grid).permute(0, 1, 4, 3, 2) for t in tokens]
