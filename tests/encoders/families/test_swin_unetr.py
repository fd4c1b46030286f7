"""MONAI's Swin transformer: both file formats, and the order of patch merging."""

from pathlib import Path

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinTransformer

from nnunet_fm.encoders import CARDS, build_encoder, load_encoder


def swin(tmp_path: Path, names: str) -> tuple[SwinTransformer, Path]:
    """A small Swin transformer, in a self-supervised file or a whole SwinUNETR."""
    torch.manual_seed(3)
    published = SwinTransformer(1, 12, (7,) * 3, (2,) * 3, (1,) * 4, (1, 2, 4, 8)).eval()
    state = published.state_dict()
    if names == "self-supervised":
        content = {f"module.{k.replace('.mlp.linear', '.mlp.fc')}": v for k, v in state.items()}
        content |= {
            "module.rotation_head.weight": torch.zeros(4, 2),
            "module.convTrans3d.weight": torch.zeros(1),
        }
    else:
        content = {f"swinViT.{k}": v for k, v in state.items()} | {
            "encoder1.layer.conv1.conv.weight": torch.zeros(1)
        }
    torch.save({"state_dict": content}, tmp_path / "swin.pt")
    return published, tmp_path / "swin.pt"


@pytest.mark.parametrize("names", ["self-supervised", "SwinUNETR"])
def test_swin_is_read_from_both_of_its_formats(names: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        encoder = build_encoder("swin_unetr48")
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(8.06, abs=0.01)
    assert [(f.channels, f.stride) for f in encoder.feature_info] == [
        (48 * 2**n, 2 * 2**n) for n in range(5)
    ]
    published, file = swin(tmp_path, names)
    encoder, report = load_encoder(file, "volume_testswin")
    assert report.format == "MONAI Swin"
    assert set(report.dropped.values()) == {"decoder or head of the pretraining"}
    x = torch.randn(1, 1, 64, 32, 32)
    for found, expected in zip(
        encoder.features(x), published(x.permute(0, 1, 4, 3, 2)), strict=True
    ):
        torch.testing.assert_close(found, expected.permute(0, 1, 4, 3, 2))
    with pytest.raises(ValueError, match="largest stride 32"):
        encoder.features(torch.zeros(1, 1, 48, 32, 32))


def test_old_weights_keep_their_order_of_patch_merging(tmp_path: Path) -> None:
    """The same file, the same shapes, other features: only the card can tell (MONAI issue 8284)."""
    _, file = swin(tmp_path, "SwinUNETR")
    old, _ = load_encoder(file, "volume_testswin", legacy_merging=True)
    new, _ = load_encoder(file, "volume_testswin")
    x = torch.randn(1, 1, 32, 32, 32)
    pairs = list(zip(old.features(x), new.features(x), strict=True))
    torch.testing.assert_close(*pairs[0])  # before the first merging
    assert all((a - b).norm() / b.norm() > 0.1 for a, b in pairs[1:])
    merging = old.swin.layers1[0].downsample
    y = torch.randn(1, 2, 2, 2, 12)
    corners = [
        y[:, i, j, k]
        for i, j, k in (
            (0, 0, 0),
            (1, 0, 0),
            (0, 1, 0),
            (0, 0, 1),
            (1, 0, 1),
            (0, 1, 0),
            (0, 0, 1),
            (1, 1, 1),
        )
    ]
    expected = merging.reduction(merging.norm(torch.cat(corners, -1)))
    torch.testing.assert_close(merging(y)[:, 0, 0, 0], expected)
    assert CARDS["swin_unetr48.ct5050"].options == {"legacy_merging": True}
