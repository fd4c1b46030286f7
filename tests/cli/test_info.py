"""`nnunet-fm info`."""

import json
import re
from pathlib import Path

import pytest
import torch

from helpers.encoder_files import braindino, official
from nnunet_fm.cli.main import main
from nnunet_fm.encoders.contract import FeatureInfo
from nnunet_fm.network.decoders import DetailDecoder


def test_info_gives_the_papers_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    words = "info --encoder braindino_vitb16 --channels 4 --classes 3 --decoder primus --json"
    assert main(words.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["total"], found["encoder"], found["trainable"]) == (110718735, 85641984, 25076751)
    assert found["decoder_flops"] == pytest.approx(38.7e9, rel=0.01)
    assert found["encoder_flops"] == pytest.approx(45e9, rel=0.06)


def test_info_takes_a_weight_file_as_plan_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "enc.pth"
    torch.save(braindino(official()), file)
    words = ["info", "--patch", "48", "48", "--json", "--encoder"]
    assert main([*words, str(file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main([*words, found["encoder_name"]]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main([*words, str(tmp_path / "other.pth")]) == 2
    assert "other.pth" in capsys.readouterr().err
    assert main([*words, "dinov3_test16", "--card", "braindino_vitb16"]) == 2
    assert "remove --card" in capsys.readouterr().err


def test_info_counts_the_network_that_plan_writes(capsys: pytest.CaptureFixture[str]) -> None:
    """Five levels, also around tokens of 8 pixels, and the features of each of four channels."""
    words = ["info", "--encoder", "dinov3_nano8", "--patch", "64", "64", "--decoder", "detail"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    info = [FeatureInfo(4 * 128, 8, f"blocks.{number}") for number in range(4)]
    decoder = DetailDecoder(info, 3, 3, 4, levels=5)
    assert found["trainable"] == sum(p.numel() for p in decoder.parameters())


def test_info_of_named_channels_slabs_and_volumes(capsys: pytest.CaptureFixture[str]) -> None:
    """The encoder sees its sequences at once; what info cannot count is refused in a sentence."""
    words = ["info", "--patch", "64", "64", "--json", "--encoder", "brainfound_test14"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    info = [FeatureInfo(32, 16, f"blocks.{number}") for number in range(4)]
    decoder = DetailDecoder(info, 3, 4, 4, levels=5)
    assert found["trainable"] == sum(p.numel() for p in decoder.parameters())
    for more, message in (
        (["--channels", "2"], "2 channels for encoder brainfound_test14.* 3 or more"),
        (["--encoder-option", "slices=3"], "sees 3 adjacent slices"),
        (["--encoder", "volume_test16"], "is 3-D; allowed: an encoder of slices"),
    ):
        assert main([*words, *more]) == 2
        assert re.search(message, capsys.readouterr().err)
