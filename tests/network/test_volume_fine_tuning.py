"""3-D encoders that learn: active parameters only, rates by block, fixed batch statistics."""

import pytest
import torch
from torch import nn

from nnunet_fm.encoders import build_encoder
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.recipe import Recipe, parameter_groups


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("volume_testuniformer", [0, 1]),
        ("volume_testuniformer", None),
        ("volume_testswin", [0, 2]),
        ("prism_test12", [0, 2]),
        ("prism_test12", None),
        ("volume_testprimus", [0, 2]),
        ("volume_testprimus", None),
        ("volume_testbmmae", [1, 2]),
    ],
)
def test_parameters_that_do_not_reach_the_features_are_not_trained(
    name: str, taps: list[int] | None
) -> None:
    """DDP waits for the gradient of every parameter that it is given."""
    encoder = build_encoder(name, taps)
    encoder.requires_grad_(True)
    sum(
        f.square().sum() for f in encoder.features(torch.randn(1, encoder.in_channels, 32, 32, 32))
    ).backward()
    reached = {id(p) for p in encoder.parameters() if p.grad is not None}
    assert {id(p) for p in encoder.active_parameters()} == reached


def test_fine_tuning_keeps_batch_statistics_and_gives_blocks_their_rates() -> None:
    network = FrozenEncoderNetwork(1, 2, "volume_testuniformer", decoder="pyramid")
    network.unfreeze()
    norms = [m for m in network.train().encoder.modules() if isinstance(m, nn.BatchNorm3d)]
    assert norms
    assert not any(m.training for m in norms)
    assert network.encoder.training
    layerwise = Recipe(encoder_learning_rate=1e-3, layer_decay=0.5)
    with pytest.raises(ValueError, match=r"layer_decay 0.5 is for transformers"):
        parameter_groups(network, layerwise)
    primus = FrozenEncoderNetwork(1, 2, "volume_testprimus", decoder="primus3d")
    primus.unfreeze()
    rates = {round(g["lr"] / 1e-3, 6) for g in parameter_groups(primus, layerwise)[2:]}
    assert rates == {0.5**n for n in range(6)}  # norm, four blocks, embeddings
    plain = Recipe(encoder_learning_rate=1e-3)  # the groups of version 0.1, whose runs are resumed
    pyramid = FrozenEncoderNetwork(1, 2, "amaes_unetb", decoder="pyramid")
    pyramid.unfreeze()
    assert [len(g["params"]) for g in parameter_groups(pyramid, plain)[2:]] == [0, 20, 10, 10]
