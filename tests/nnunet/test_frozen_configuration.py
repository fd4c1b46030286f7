"""Configurations around a frozen encoder: what they hold, and requests that are refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.plans import arguments_of, name_channels, plan
from nnunet_fm.encoders.families.brainiac import VolumeViT
from nnunet_fm.internal.arguments import parse_key_values
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.frozen_configuration import presets


@pytest.mark.parametrize("preset", sorted(presets()))
def test_every_preset_gives_a_network_that_runs(preset: str, stock_plans: Path) -> None:
    base = presets()[preset]["base"]
    name, trainer = {
        "2d": ("dinov3_test16", "FrozenDinoTrainer"),
        "3d_fullres": ("volume_test16", "FrozenVolumeTrainer"),
    }[base]
    plans, words = plan(stock_plans, configuration=base, encoder=name, preset=preset)
    planned = {"2d_detail": "2d_fm256"}.get(preset, preset)  # named after the patch
    configuration = plans["configurations"][planned]
    assert configuration["inherits_from"] == base
    with torch.device("meta" if base == "3d_fullres" else "cpu"):  # 128^3 for its shape only
        network = FrozenEncoderNetwork(4, 3, **configuration["architecture"]["arch_kwargs"])
        assert network(torch.zeros(1, 4, *configuration["patch_size"])).shape[2:] == tuple(
            configuration["patch_size"]
        )
    assert "RANDOM" in words
    assert f"{planned} 0 -tr {trainer} -p FM_{name}_random" in words


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            {"configuration": "3d_fullres", "encoder": "dinov3_test16"},
            "2-D and configuration '3d_fullres' 3-D; .*or -c 2d",
        ),
        (
            {"configuration": "2d", "encoder": "volume_test16"},
            "3-D and configuration '2d' 2-D; .*or -c 3d_fullres",
        ),
        (
            {"configuration": "3d_fullres", "encoder": "volume_test16", "patch": (96, 100, 96)},
            "96x112x96",
        ),
        (
            {"configuration": "3d_fullres", "encoder": "volume_test16", "fov": "fit"},
            "for volumes: native",
        ),
        (
            {"configuration": "3d_fullres", "encoder": "volume_test16", "decoder": "primus"},
            "Allowed for it: unetr, primus3d",
        ),
        (
            {"configuration": "3d_fullres", "encoder": "volume_test16", "taps": (3, 7)},
            "allowed: four of stride 16",
        ),
        (
            {"configuration": "3d_fullres", "encoder": "volume_test16", "preset": "2d_fm256"},
            "is for -c 2d",
        ),
    ],
)
def test_requests_of_the_wrong_dimension_are_refused(
    request_: dict[str, object], message: str, stock_plans: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        plan(stock_plans, **request_)


def test_options_reach_the_encoder(stock_plans: Path) -> None:
    plans, _ = plan(
        stock_plans,
        encoder="dinov3_test16",
        options=parse_key_values(["qkv_bias=true", "norm_eps=1e-6"]),
    )
    arguments = plans["configurations"]["2d_fm256"]["architecture"]["arch_kwargs"]
    assert arguments["encoder_options"] == {"qkv_bias": True, "norm_eps": 1e-6}
    with pytest.raises(ValueError, match="colour"):
        plan(stock_plans, encoder="dinov3_test16", options={"colour": "red"})
    with pytest.raises(ValueError, match="KEY=VALUE"):
        parse_key_values(["qkv_bias"])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"patch": (100,)}, "multiples of 16; nearest possible: 96x96 or 112x112"),
        ({"patch": (250, 256)}, "nearest possible: 240x256 or 256x256"),
        ({"patch": (1, 2, 3)}, "one side, or 2"),
        ({"configuration": "2D"}, "Did you mean 2d"),
        ({"configuration": "3d_fullres"}, "allowed: a 3-D encoder, or -c 2d"),
        ({"preset": "2d_fm265"}, "Did you mean 2d_fm256"),
        ({"fov": "fitted"}, "Did you mean fit"),
        ({"fusion": "fix"}, "allowed"),
        ({"decoder": "unet"}, "unknown decoder"),
        ({"decoder": "detail", "patch": (16,)}, "patch 16x16 with the 5 levels"),
        ({"decoder": "detail", "decoder_options": {"width": -1}}, "width=-1; allowed"),
        ({"decoder": "detail", "decoder_options": {"rank": "high"}}, "rank='high'; allowed"),
        (
            {"decoder": "detail", "decoder_options": {"depth": 3}},
            "takes gate_rate, levels, rank, width",
        ),
        ({"decoder": "primus", "detail_width": 8}, "--detail-width with decoder primus"),
        (
            {"detail_width": 8, "decoder_options": {"width": 9}, "decoder": "detail"},
            "--detail-width 8 and --decoder-option width=9; allowed: one of them",
        ),
        (
            {"decoder": "primus", "tokens": "off"},
            "tokens off with decoder primus.*--decoder detail",
        ),
        (
            {"tokens": "off", "decoder": "detail", "fusion": "learnable"},
            "--tokens off with --fusion learnable",
        ),
        ({"taps": (1, 7)}, "from 0 to 3"),
        ({"encoder": "braindino_vitb16"}, "published weights.*--card braindino_vitb16.mri6m"),
        ({"encoder": "missing.pth"}, "does not exist"),
    ],
)
def test_impossible_requests_name_what_is_possible(
    request_: dict, message: str, stock_plans: Path
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        plan(stock_plans, **({"encoder": "dinov3_test16"} | request_))
    assert not list(stock_plans.glob("FM_*"))


def test_detail_writes_its_width_and_levels_and_separates_the_channels(stock_plans: Path) -> None:
    plans, words = plan(
        stock_plans, encoder="dinov3_test16", decoder="detail", patch=(64,), detail_width=8
    )
    arguments = arguments_of(plans, "2d_fm64")
    assert arguments["decoder_options"] == {"width": 8, "levels": 5, "gate_rate": 30}
    assert arguments["fusion"] == "separate"
    assert "tokens" not in arguments
    assert "fusion separate, decoder detail, width 8, levels 5, gate_rate 30" in words
    plans, words = plan(
        stock_plans,
        encoder="dinov3_test16",
        decoder="detail",
        patch=(64,),
        tokens="off",
        output="O",
    )
    arguments = arguments_of(plans, "2d_fm64")
    assert arguments["tokens"] == "off"
    assert "TOKENS OFF" in words
    network = FrozenEncoderNetwork(4, 3, **arguments)
    assert network(torch.zeros(1, 4, 64, 64)).shape == (1, 3, 64, 64)


def test_the_mean_of_different_channels_is_warned_of(stock_plans: Path) -> None:
    def words(**request: object) -> str:
        name = f"O{len(list(stock_plans.glob('O*')))}"
        return plan(stock_plans, encoder="dinov3_test16", output=name, **request)[1]

    name_channels(stock_plans, "T1", "FLAIR")
    warning = "WARNING: --fusion fixed passes the mean of T1, FLAIR to the encoder"
    assert warning in words(fusion="fixed")
    assert "Recommended: --fusion learnable" in words(fusion="fixed", decoder="light")
    assert "Recommended: --fusion separate or" in words(fusion="fixed", decoder="detail")
    assert "WARNING" not in words(fusion="fixed", channels=(0, 1, 1))
    assert "WARNING" not in words()
    assert "WARNING" not in words(decoder="detail")
    assert "WARNING" not in words(decoder="detail", tokens="off")
    name_channels(stock_plans, "FLAIR")
    assert "WARNING" not in words(fusion="fixed")


def test_plans_of_decoders_without_options_stay_as_they_were(stock_plans: Path) -> None:
    plans, _ = plan(stock_plans, encoder="dinov3_test16", decoder="primus")
    new = {"decoder_options", "tokens", "channels", "encoder_scale"}
    assert not new & arguments_of(plans, "2d_fm256").keys()


def test_slices_get_the_detail_decoder_and_the_papers_preset_keeps_primus(
    stock_plans: Path,
) -> None:
    def chosen(**request: Any) -> tuple[str, str]:
        plans, _ = plan(stock_plans, encoder="dinov3_test16", **request)
        arguments = arguments_of(plans, "2d_fm256")
        return arguments["decoder"], arguments["fusion"]

    assert chosen(output="O1") == ("detail", "separate")
    assert chosen(output="O2", preset="2d_fm256") == ("primus", "learnable")
    assert chosen(output="O3", decoder="primus") == ("primus", "learnable")


def test_encoders_of_8_voxel_patches_get_the_primus_decoder(stock_plans: Path) -> None:
    plans, _ = plan(
        stock_plans, configuration="3d_fullres", encoder="volume_testprimus", preset="3d_fm32"
    )
    assert arguments_of(plans, "3d_fm32")["decoder"] == "primus3d"


def test_patches_that_the_network_cannot_take_are_refused(stock_plans: Path) -> None:
    with pytest.raises(ValueError, match=r"patch 4x4x4 is too small .* allowed: from 8x8x8 on"):
        plan(stock_plans, configuration="3d_fullres", encoder="volume_testpyramid", patch=(4,))
    crop = {"encoder": "volume_testprimus", "options": {"positions": "crop"}, "patch": (40,)}
    with pytest.raises(
        ValueError, match=r"^positions 'crop' with a grid of \(5, 5, 5\); allowed: up to 4"
    ):
        plan(stock_plans, configuration="3d_fullres", **crop)
    with pytest.raises(
        ValueError, match="patch 6x6x6: all sides must be multiples of 4; nearest possible: 4x4x4"
    ):
        plan(stock_plans, configuration="3d_fullres", encoder="volume_testpyramid", patch=(6,))


class DataDependentEncoder(VolumeViT):
    """An encoder whose forward pass depends on its data, with intensities of its own."""

    def __init__(self, taps: object = None) -> None:
        super().__init__(taps, image_size=48, hidden_size=24, mlp_dim=48, depth=8, num_heads=2)
        self.input_spec = replace(self.input_spec, intensity="quantiles")

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        return super().features(x if x.max().item() > 0 else x + 1)


def test_an_encoder_whose_pass_depends_on_its_data_can_be_planned(stock_plans: Path) -> None:
    _, words = plan(
        stock_plans,
        configuration="3d_fullres",
        encoder=f"{__name__}.DataDependentEncoder",
        preset="3d_fm32",
    )
    assert "the encoder was pretrained on quantiles, which nnU-Net does not have" in words


def test_other_voxels_than_those_of_the_pretraining_are_reported(stock_plans: Path) -> None:
    def report(number: int, **options: Any) -> str:
        request: dict[str, Any] = {"encoder": "volta3d_test8", "patch": (32, 32, 32)}
        return plan(
            stock_plans,
            **request,
            configuration="3d_fullres",
            options=options,
            output=f"O{number}",
        )[1]

    stock = json.loads((stock_plans / "nnUNetPlans.json").read_text())
    spacing = stock["configurations"]["3d_fullres"]["spacing"]
    assert "voxels" not in report(1)
    assert "voxels" not in report(2, spacing=spacing)
    said = report(3, spacing=[2, 2, 9])
    assert "pretrained on voxels of 2 x 2 x 9 mm; those of this configuration have" in said
    assert "-overwrite_target_spacing 2 2 9 -overwrite_plans_name" in said
    with pytest.raises(ValueError, match=r"spacing \[1, 1\]; allowed: three sizes in mm"):
        report(4, spacing=[1, 1])
    assert "all of them RAS: --encoder-option image_orientation=RAS" in said
