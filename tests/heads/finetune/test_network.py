"""Which parameters are trained."""

from typing import cast

import pytest
import torch
from torch import nn

from nnunet_fm.encoders import build_encoder
from nnunet_fm.encoders.slicewise import SliceWise
from nnunet_fm.heads.finetune.network import FineTunedNetwork, unfrozen_parameters

ENCODER = "volta3d_test8"
WIDTH, SIDE = 24, 16


@pytest.mark.parametrize("unfreeze", [0, 1, 2])
def test_only_the_last_blocks_and_the_final_norm_are_trained(unfreeze: int) -> None:
    encoder = build_encoder(ENCODER)
    network = FineTunedNetwork(encoder, unfreeze, WIDTH, 2)
    names = {name for name in network.trained() if name.startswith("encoder.")}
    numbers = {name.split("blocks.")[1].split(".")[0] for name in names if "blocks." in name}
    depth = len(cast(nn.ModuleList, encoder.vit.blocks))  # type: ignore[union-attr]
    assert numbers == {str(depth - 1 - n) for n in range(unfreeze)}
    assert any(".norm." in name and "blocks" not in name for name in names) == (unfreeze > 0)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimiser = torch.optim.SGD(network.trained().values(), lr=1.0)
    x = torch.randn(2, 1, SIDE, SIDE, SIDE)
    network.head(network.embed(x)).square().sum().backward()
    optimiser.step()
    changed = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert changed <= set(network.trained())
    assert {"head.1.weight", "head.1.bias"} <= changed
    assert any("blocks" in name for name in changed) == (unfreeze > 0)
    for name, p in encoder.named_parameters():  # the encoder that was given is copied
        assert torch.equal(p, before[f"encoder.{name}"])


def test_more_blocks_than_there_are_are_refused() -> None:
    with pytest.raises(ValueError, match=r"finetune.unfreeze=99; allowed: 0 to \d+, or all"):
        unfrozen_parameters(build_encoder(ENCODER), 99)
    with pytest.raises(ValueError, match="no blocks to tell apart; allowed: 0, all"):
        unfrozen_parameters(build_encoder("volume_testswin"), 1)
    everything = list(build_encoder(ENCODER).parameters())
    assert len(unfrozen_parameters(build_encoder(ENCODER), "all")) == len(everything)


def test_an_encoder_of_slices_has_its_blocks() -> None:
    volumes = SliceWise(build_encoder("dinov3_test16"))
    assert volumes.depth == 4
    last = {id(p) for p in unfrozen_parameters(volumes, 1)}
    trained = {name for name, p in volumes.named_parameters() if id(p) in last}
    assert {name.split(".")[2] for name in trained} == {"blocks", "norm"}
    assert {name.split(".")[3] for name in trained if ".blocks." in name} == {"3"}
