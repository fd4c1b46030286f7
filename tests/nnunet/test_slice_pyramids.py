"""Encoders of slices with maps of several resolutions: planned, built from the plans, trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from helpers.plain_convnext import random_state
from helpers.plans import arguments_of, name_channels, plan
from nnunet_fm.cli.main import main
from nnunet_fm.encoders import EncoderSource, FeatureInfo
from nnunet_fm.network.decoders import SlicePyramidDecoder, SlicePyramidDetailDecoder
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.recipe import Recipe, parameter_groups

ENCODER = "dinov3_convnext_test"


@pytest.mark.parametrize(
    ("request_", "decoder", "fusion"),
    [
        ({}, "detail", "separate"),
        ({"preset": "2d_fm256"}, "pyramid", "learnable"),  # its primus takes tokens
        ({"decoder": "pyramid"}, "pyramid", "learnable"),
    ],
)
def test_a_pyramid_gets_the_presets_decoder_or_else_its_own(
    request_: dict[str, Any], decoder: str, fusion: str, stock_plans: Path
) -> None:
    plans, words = plan(stock_plans, encoder=ENCODER, **request_)
    arguments = arguments_of(plans, "2d_fm256")
    assert (arguments["decoder"], arguments["fusion"]) == (decoder, fusion)
    assert arguments["taps"] == [0, 1, 2, 3]
    assert f"taps [0, 1, 2, 3], fusion {fusion}, decoder {decoder}" in words
    assert "-tr FrozenDinoTrainer -p" in words


@pytest.mark.parametrize("decoder", ["detail", "pyramid"])
def test_plans_give_a_network_that_learns(decoder: str, stock_plans: Path, tmp_path: Path) -> None:
    torch.save(random_state((1, 1, 2, 1), (8, 16, 24, 32)), tmp_path / "weights.pth")
    plans, words = plan(
        stock_plans,
        encoder=str(tmp_path / "weights.pth"),
        card="dinov3_convnext_test.trained",
        patch=(64,),
        decoder=decoder,
    )
    assert "encoder dinov3_convnext_test.trained, from" in words
    arguments = arguments_of(plans, "2d_fm64")
    network = FrozenEncoderNetwork(4, 3, **arguments)
    network.load_encoder()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.train()
    optimizer = torch.optim.AdamW(parameter_groups(network, Recipe(learning_rate=1e-2)))
    x, truth = torch.randn(2, 4, 64, 64), torch.randint(3, (2, 64, 64))
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        losses.append(torch.nn.functional.cross_entropy(network(x), truth))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    after = network.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in after if key.startswith("encoder."))
    assert any(not torch.equal(after[key], before[key]) for key in after if "decoder" in key)


def test_a_network_of_timm_is_planned_by_its_name_and_drawn_again(stock_plans: Path) -> None:
    options = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
    plans, words = plan(
        stock_plans, encoder="timm/convnext_atto", options=options, taps=(1, 3), patch=(64,)
    )
    arguments = arguments_of(plans, "2d_fm64")
    assert (arguments["encoder"], arguments["taps"]) == ("timm/convnext_atto", [1, 3])
    assert "RANDOM weights" in words
    network = FrozenEncoderNetwork(4, 3, **arguments)
    network.load_encoder()
    drawn = EncoderSource.resolve("timm/convnext_atto", options=options).load()
    for key, value in network.encoder.state_dict().items():
        assert torch.equal(value, drawn.state_dict()[key]), key


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"patch": (80,)}, "patch 80x80: all sides must be multiples of 32; .* 64x64 or 96x96"),
        ({"patch": (32,)}, "patch 32x32 with the 6 levels of decoder detail; .* from 64 on"),
        ({"taps": (0, 4)}, "from 0 to 3"),
        ({"decoder": "light"}, "Allowed for it: pyramid, detail; for light: 2-D tokens"),
        ({"encoder": "timm/xcit_nano_12_p16_224"}, "gives maps of stride 16; allowed"),
        ({"encoder_scale": 4, "encoder": "timm/resnet18"}, "scale 4; allowed .*: 1, 2$"),
        ({"configuration": "3d_fullres"}, "is 2-D and configuration '3d_fullres' 3-D"),
    ],
)
def test_impossible_requests_name_what_is_possible(
    request_: dict[str, Any], message: str, stock_plans: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        plan(stock_plans, **({"encoder": ENCODER} | request_))


def test_further_options_of_slices(stock_plans: Path) -> None:
    name_channels(stock_plans, "T1", "FLAIR", "T1c")
    plans, _ = plan(
        stock_plans, encoder=ENCODER, patch=(64,), encoder_scale=2, channels=(0, 1, 2), output="O1"
    )
    arguments = arguments_of(plans, "2d_fm64")
    assert (arguments["encoder_scale"], arguments["fusion"]) == (2, "fixed")
    assert FrozenEncoderNetwork(3, 2, **arguments).eval()(torch.zeros(1, 3, 64, 64)).shape[1] == 2
    plans, words = plan(stock_plans, encoder=ENCODER, patch=(64,), tokens="off", output="O2")
    assert arguments_of(plans, "2d_fm64")["tokens"] == "off"
    assert "TOKENS OFF" in words
    plans, _ = plan(stock_plans, encoder=ENCODER, patch=(4, 64, 64), mix_slices=3, output="O3")
    assert arguments_of(plans, "25d_fm64")["mix_slices"] == 3


@pytest.mark.parametrize("decoder", ["detail", "pyramid"])
def test_info_counts_parameters_and_operations(
    decoder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["info", "--encoder", ENCODER, "--patch", "64", "64", "--decoder", decoder, "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    maps = [(8, 4), (16, 8), (24, 16), (32, 32)]
    if decoder == "detail":  # of each of four channels
        info = [FeatureInfo(4 * channels, stride, "") for channels, stride in maps]
        learned = SlicePyramidDetailDecoder(info, 3, 5, 4)
    else:
        info = [FeatureInfo(channels, stride, "") for channels, stride in maps]
        learned = nn.ModuleList(
            [SlicePyramidDecoder(info, 3, 5, 4), nn.Conv2d(4, 3, 1, bias=False)]
        )
    assert found["trainable"] == sum(p.numel() for p in learned.parameters())
    assert found["encoder_flops"] > 0
    assert found["decoder_flops"] > 0
