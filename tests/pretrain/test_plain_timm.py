"""The documented lines that load an exported encoder into plain timm."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nnunet_fm.data.synthetic import make_case
from nnunet_fm.encoders import load_encoder
from nnunet_fm.encoders.families.dinov3 import TRAINING_CODE
from nnunet_fm.encoders.loading.metadata import write_encoder
from nnunet_fm_pretrain.methods.dinov3 import export_dinov3

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pretraining.md"


def documented_lines() -> str:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "timm.create_model" in block]
    return block


def brain_slices() -> Tensor:
    """Slices of a synthetic brain, z-scored as for the encoder's training: (2, 3, h, w)."""
    volume = torch.tensor(make_case(1, (12, 224, 224)).images["T1c"]).float()
    inside = volume != 0
    scored = (volume - volume[inside].mean()) / volume[inside].std()
    slices = torch.where(inside, scored, 0)[4:8:2]
    return slices[:, None].repeat(1, 3, 1, 1)


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@torch.no_grad()
def test_plain_timm_gives_the_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = documented_lines()
    assert len([line for line in lines.splitlines() if line.strip()]) <= 10
    encoder, report = load_encoder("synth_vitt16")
    exported = export_dinov3(encoder, report.architecture)
    about = {"card": exported.card, "architecture": exported.architecture, "options": TRAINING_CODE}
    write_encoder(tmp_path / "encoder.safetensors", exported.tensors, about)
    monkeypatch.chdir(tmp_path)
    images = brain_slices()
    names: dict[str, Any] = {"images": images}
    exec(lines, names)
    cls, patches = names["tokens"][:, 0], names["tokens"][:, 5:]
    for rope, most, least in (("float32", 1e-5, 0.0), ("bfloat16", 0.02, 0.001)):
        ours, _ = load_encoder("encoder.safetensors", rope=rope)
        last = ours.features(images)[-1].flatten(2).transpose(1, 2)
        assert least <= difference(cls, ours.embed(images)) < most
        assert least <= difference(patches, last) < most / 4
