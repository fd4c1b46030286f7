"""What learns, and how fast."""

import pytest
import torch

from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.recipe import LinearDecay, Recipe, parameter_groups


def test_parameter_groups_and_learning_rates() -> None:
    network = FrozenEncoderNetwork(4, 3, "dinov3_test16")
    groups = parameter_groups(network, Recipe())
    assert [g["weight_decay"] for g in groups] == [0.05, 0.0]
    assert any(p is network.fusion.weight for p in groups[1]["params"])
    assert sum(len(g["params"]) for g in groups) == sum(
        p.requires_grad for p in network.parameters()
    )
    network.unfreeze()
    recipe = Recipe(encoder_learning_rate=3e-5, layer_decay=0.5)
    groups = parameter_groups(network, recipe)
    learns = [p for p in network.parameters() if p.requires_grad]
    assert (
        sum(len(g["params"]) for g in groups) == len(learns) == len(list(network.parameters())) - 1
    )
    assert not network.encoder.mask_token.requires_grad  # used in pretraining only
    assert sorted({g["lr"] for g in groups}) == pytest.approx(
        sorted([3e-4, *(3e-5 * 0.5**i for i in range(6))])
    )
    optimizer = torch.optim.AdamW(groups)
    schedule = LinearDecay(optimizer, 100)
    schedule.step(25)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.75 * 3e-4)
