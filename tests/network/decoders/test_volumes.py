"""Decoders of volumes."""

from pathlib import Path
from typing import Any

import torch
from monai.networks.nets.unetr import UNETR
from torch import Tensor, nn

from nnunet_fm.network.frozen import FrozenEncoderNetwork


def test_the_unetr_decoder_equals_monais(tmp_path: Path) -> None:
    theirs = UNETR(
        4, 3, (64, 48, 32), feature_size=16, hidden_size=24, mlp_dim=48, num_heads=2
    ).eval()
    decoder = FrozenEncoderNetwork(4, 3, "volume_test16", decoder="unetr").decoder.eval()
    names = {
        "image": "encoder1",
        "skips.0": "encoder2",
        "skips.1": "encoder3",
        "skips.2": "encoder4",
        "head": "out",
    }
    names |= {f"ups.{n}": f"decoder{n + 2}" for n in range(4)}
    state = {}
    for key in decoder.state_dict():
        mine = next(n for n in names if key.startswith(f"{n}."))
        state[key] = theirs.state_dict()[f"{names[mine]}{key.removeprefix(mine)}"]
    decoder.load_state_dict(state)
    image, maps = torch.randn(1, 4, 64, 48, 32), [torch.randn(1, 24, 4, 3, 2) for _ in range(4)]
    tokens = [m.flatten(2).transpose(1, 2) for m in maps]
    hidden: list[Any] = [None] * 12
    hidden[3], hidden[6], hidden[9] = tokens[:3]
    theirs.vit = FixedOutput(tokens[3], hidden)
    torch.testing.assert_close(decoder(maps, image), theirs(image))


class FixedOutput(nn.Module):
    """A transformer whose output is given."""

    def __init__(self, *result: Any) -> None:
        super().__init__()
        self.result = result

    def forward(self, x: Tensor) -> Any:
        return self.result
