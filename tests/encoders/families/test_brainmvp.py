"""BrainMVP: its authors' files and the numbers of their forward, by the names in the file."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from helpers.shuffled import shuffled
from nnunet_fm.encoders import build_encoder, load_encoder
from nnunet_fm.network.frozen import FrozenEncoderNetwork


class PlainUniFormer:
    """The authors' forward pass by the names in their file, on (x, y, z) volumes."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def __call__(self, x: Tensor) -> list[Tensor]:
        x, maps = x.permute(0, 1, 4, 2, 3), []
        for stage in (1, 2, 3, 4):
            x = self.conv(f"patch_embed{stage}.proj", x, stride=2)
            x = self.layer_norm(f"patch_embed{stage}.norm", x.movedim(1, -1), 1e-5).movedim(-1, 1)
            count = len(
                {m[1] for k in self.state if (m := re.match(rf"blocks{stage}\.(\d+)\.", k))}
            )
            for n in range(count):
                x = (self.local if stage <= 2 else self.attending)(f"blocks{stage}.{n}", x)
            maps.append(self.batch_norm("norm", x) if stage == 4 else x)
        return maps

    def conv(self, name: str, x: Tensor, **how: Any) -> Tensor:
        return functional.conv3d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **how)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def layer_norm(self, name: str, x: Tensor, eps: float = 1e-6) -> Tensor:
        return functional.layer_norm(
            x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps
        )

    def batch_norm(self, name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            self.state[f"{name}.{k}"][:, None, None, None]
            for k in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def local(self, name: str, x: Tensor) -> Tensor:
        x = x + self.conv(f"{name}.pos_embed", x, padding=1, groups=x.shape[1])
        y = self.conv(f"{name}.conv1", self.batch_norm(f"{name}.norm1", x))
        x = x + self.conv(
            f"{name}.conv2", self.conv(f"{name}.attn", y, padding=2, groups=x.shape[1])
        )
        y = functional.gelu(self.conv(f"{name}.mlp.fc1", self.batch_norm(f"{name}.norm2", x)))
        return x + self.conv(f"{name}.mlp.fc2", y)

    def attending(self, name: str, x: Tensor) -> Tensor:
        x = x + self.conv(f"{name}.pos_embed", x, padding=1, groups=x.shape[1])
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.linear(f"{name}.attn.qkv", self.layer_norm(f"{name}.norm1", tokens)).chunk(
            3, -1
        )
        weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(
            -1
        )  # one head at these widths
        tokens = tokens + self.linear(f"{name}.attn.proj", weights @ v)
        y = functional.gelu(
            self.linear(f"{name}.mlp.fc1", self.layer_norm(f"{name}.norm2", tokens))
        )
        return (tokens + self.linear(f"{name}.mlp.fc2", y)).transpose(1, 2).reshape(x.shape)


def brainmvp(tmp_path: Path) -> tuple[PlainUniFormer, Any]:
    published = shuffled(build_encoder("volume_testuniformer").uniformer, 5).state_dict()
    content = {f"module.encoder.uniformer.{k}": v for k, v in published.items()}
    content |= {
        "module.decoder.out_1.conv.conv.bias": torch.zeros(1),
        "module.rep_template": torch.zeros(8, 4, 4, 4),
    }
    torch.save({"current_epoch": 1500, "state_dict": content}, tmp_path / "BrainMVP_uniformer.pt")
    encoder, report = load_encoder(tmp_path / "BrainMVP_uniformer.pt", "volume_testuniformer")
    assert report.prefixes == ["module.", "encoder."]
    assert (report.format, report.missing) == ("BrainMVP", [])
    assert set(report.dropped.values()) == {"decoder or template of the pretraining"}
    return PlainUniFormer(published), encoder


def test_brainmvp_has_its_parameters_and_shapes() -> None:
    with torch.device("meta"):
        encoder = build_encoder("brainmvp_uniformer").eval()
        maps = encoder.features(torch.zeros(1, 1, 128, 128, 128))
    assert sum(p.numel() for p in encoder.parameters()) == 22_038_464
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, *[64] * 3),
        (128, *[32] * 3),
        (320, *[16] * 3),
        (512, *[8] * 3),
    ]


def test_brainmvp_gives_the_numbers_of_its_authors_forward(tmp_path: Path) -> None:
    published, encoder = brainmvp(tmp_path)
    x = torch.randn(2, 1, 32, 48, 16)  # (z, y, x)
    expected = published(x.permute(0, 1, 4, 3, 2))  # in (z, x, y)
    for found, theirs in zip(encoder.features(x), expected, strict=True):
        torch.testing.assert_close(found, theirs.transpose(3, 4), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(encoder.embed(x), encoder.features(x)[-1].mean((2, 3, 4)))
    with pytest.raises(ValueError, match="largest stride 16"):
        encoder.features(torch.zeros(1, 1, 32, 40, 32))


def test_frozen_batch_statistics_stay_what_they_were(tmp_path: Path) -> None:
    network = FrozenEncoderNetwork(2, 3, "volume_testuniformer", decoder="pyramid").train()
    before = {k: v.clone() for k, v in network.encoder.state_dict().items()}
    x = torch.randn(2, 2, 32, 32, 32)
    first = network(x)
    first.square().mean().backward()
    assert all(torch.equal(v, before[k]) for k, v in network.encoder.state_dict().items())
    with torch.no_grad():
        one = network.eval()(x[:1])
    torch.testing.assert_close(
        one, first[:1].detach(), rtol=1e-4, atol=1e-4
    )  # nothing of the other case in it
