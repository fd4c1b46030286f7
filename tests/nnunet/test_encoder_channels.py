"""What `plan` gives the encoder of the dataset's channels: which, in what order, how joined."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.plans import arguments_of, name_channels, plan
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.network.slice_stack import FrozenEncoder25DNetwork


def test_the_input_of_the_encoder_is_planned(stock_plans: Path) -> None:
    name_channels(stock_plans, "T1", "T1c", "T2", "FLAIR")
    request = {"encoder": "dinov3_test16", "patch": (40,), "encoder_scale": 2, "decoder": "detail"}
    plans, words = plan(stock_plans, **request, channels=(1, 2, 3), output="O1")
    arguments = arguments_of(plans, "2d_fm40")
    assert arguments["channels"] == [1, 2, 3]
    assert arguments["fusion"] == "fixed"
    assert arguments["encoder_scale"] == 2
    assert "channels of the encoder: T1c, T2, FLAIR" in words
    assert "image enlarged 2 times for the encoder" in words
    x = torch.randn(1, 4, 40, 40)
    network = FrozenEncoderNetwork(4, 3, **arguments)
    torch.testing.assert_close(network.fusion(x), x[:, 1:])
    assert network(x).shape == (1, 3, 40, 40)
    plans, _ = plan(stock_plans, **{**request, "decoder": "primus"}, channels=(1, 2, 3), output="P")
    assert arguments_of(plans, "2d_fm40")["fusion"] == "fixed"
    plans, words = plan(stock_plans, **request, fusion="separate", output="O2")
    arguments = arguments_of(plans, "2d_fm40")
    assert "fusion separate" in words
    assert FrozenEncoderNetwork(4, 3, **arguments).encode(x)[0].shape == (1, 4 * 32, 5, 5)
    plans, _ = plan(stock_plans, **request, fusion="separate", tokens="off", output="O3")
    assert FrozenEncoderNetwork(4, 3, **arguments_of(plans, "2d_fm40"))(x).shape[1] == 3


def test_channels_under_their_older_key_are_known_too(stock_plans: Path) -> None:
    description = {"modality": {"0": "T1", "1": "FLAIR"}, "numTraining": 4}
    (stock_plans / "dataset.json").write_text(json.dumps(description))
    _, words = plan(stock_plans, encoder="dinov3_test16", fusion="fixed")
    assert "the mean of T1, FLAIR" in words
    description["modality"] = {"T1": "0"}
    (stock_plans / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"dataset.json: .* numbers T1; allowed: 0, 1, \.\.\."):
        plan(stock_plans, encoder="dinov3_test16", output="O")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"channels": (0, 1)}, "--channels 0,1; allowed: for each of the 3 channels of dinov3_"),
        ({"channels": (0, 1, 4)}, r"number of a channel of the dataset \(0 T1, 1 T1c, 2 T2, 3 FL"),
        ({"channels": (0, 1, 2), "fusion": "separate"}, "allowed: one of them"),
        ({"encoder": "none", "channels": (0, 1, 2)}, "channels"),
        ({"encoder": "none", "encoder_scale": 2}, "encoder.scale"),
        (
            {
                "configuration": "3d_fullres",
                "preset": "3d_fm32",
                "encoder": "volume_test16",
                "encoder_scale": 2,
            },
            "encoder scale 2; allowed for this encoder: 1",
        ),
        (
            {
                "configuration": "3d_fullres",
                "preset": "3d_fm32",
                "encoder": "volume_testbmmae",
                "channels": (0,),
            },
            "volume_testbmmae knows its channels by name, T1, T1c, T2, FLAIR; omit it",
        ),
        (
            {
                "configuration": "3d_fullres",
                "preset": "3d_fm32",
                "encoder": "volume_testbmmae",
                "fusion": "separate",
            },
            "--fusion separate for an encoder that knows its channels by name, T1",
        ),
    ],
)
def test_an_impossible_input_of_the_encoder_is_refused(
    request_: dict[str, object], message: str, stock_plans: Path
) -> None:
    name_channels(stock_plans, "T1", "T1c", "T2", "FLAIR")
    with pytest.raises(ValueError, match=message):
        plan(stock_plans, **{"encoder": "dinov3_test16", **request_})


@pytest.mark.parametrize("encoder", ["volume_testbmmae", "brainfm_test8"])
def test_channels_are_found_by_their_names(encoder: str, stock_plans: Path) -> None:
    """BraTS 2023's order is not the encoder's, and a sequence may be missing."""
    name_channels(stock_plans, "T1c", "T1n", "FLAIR", "ADC")
    request = {"configuration": "3d_fullres", "encoder": encoder, "preset": "3d_fm32"}
    plans, words = plan(stock_plans, **request)
    arguments = arguments_of(plans, "3d_fm32")
    assert arguments["channels"] == [1, 0, 2]
    assert arguments["encoder_options"]["modalities"] == ["T1", "T1c", "FLAIR"]
    assert arguments["fusion"] == "fixed"
    assert "channels T1 from 1, T1c from 0, FLAIR from 2" in words
    network = FrozenEncoderNetwork(4, 3, **arguments)
    x = torch.randn(1, 4, 32, 32, 32)
    torch.testing.assert_close(network.fusion(x), x[:, [1, 0, 2]])
    network.load_encoder()


def test_channels_of_no_known_name_are_refused(stock_plans: Path) -> None:
    request = {"configuration": "3d_fullres", "preset": "3d_fm32"}
    name_channels(stock_plans, "CT")
    with pytest.raises(
        ValueError, match=r"knows its channels by name, T1, T1c, T2, FLAIR; channel_names .* are CT"
    ):
        plan(stock_plans, encoder="volume_testbmmae", **request)
    name_channels(stock_plans, "T1", "FLAIR")
    swin = {"encoder": "volume_testswin", "options": {"modalities": ["FLAIR", "T1c"]}}
    with pytest.raises(ValueError, match="no T1c. Allowed: usual spellings"):
        plan(stock_plans, **swin, **request)
    with pytest.raises(
        ValueError, match=r"channels \[0, 4\]; allowed: one of 0 to 3 for each of the encoder's 2"
    ):
        FrozenEncoderNetwork(
            4, 3, "volume_testswin", swin["options"], decoder="pyramid", channels=[0, 4]
        )


def test_an_encoder_of_slabs_is_planned_with_named_channels_and_stacks(stock_plans: Path) -> None:
    name_channels(stock_plans, "T1", "T1c", "T2", "FLAIR")
    request: dict[str, Any] = {"encoder": "brainfound_test14", "patch": (64,)}
    plans, words = plan(stock_plans, **request, output="O1")
    arguments = arguments_of(plans, "2d_fm64")
    assert "T1 from 0, T2 from 2, FLAIR from 3" in words
    assert (arguments["fusion"], arguments["channels"]) == ("fixed", [0, 2, 3])
    assert FrozenEncoderNetwork(4, 3, **arguments)(torch.randn(1, 4, 64, 64)).shape[1] == 3
    slabs = {**request, "options": {"slices": 3}}
    with pytest.raises(ValueError, match="sees 3 adjacent slices; add --mix-slices 1"):
        plan(stock_plans, **slabs)
    assert "from the lowest" not in words
    plans, words = plan(stock_plans, **slabs, mix_slices=1, output="O2")
    assert "sees 3 slices of each channel from the lowest to the highest" in words
    arguments = arguments_of(plans, "25d_fm64")
    x = torch.randn(1, 4, 8, 64, 64)
    assert FrozenEncoder25DNetwork(4, 3, **arguments)(x).shape == (1, 3, 8, 64, 64)
    name_channels(stock_plans, "FLAIR", "T1c")
    plans, words = plan(stock_plans, **request, output="O3")
    arguments = arguments_of(plans, "2d_fm64")
    assert arguments["encoder_options"]["modalities"] == ["FLAIR"]
    assert FrozenEncoderNetwork(2, 3, **arguments)(torch.randn(1, 2, 64, 64)).shape[1] == 3
