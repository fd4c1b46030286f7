"""Options of encoders, the orientation of their volumes, and the maps that they declare."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform
from torch import Tensor

from helpers.encoder_files import randomised
from nnunet_fm.encoders import (
    CARDS,
    EncoderSource,
    WeightCard,
    build_encoder,
    orientation_of,
)
from nnunet_fm.encoders.axes import Turn
from nnunet_fm.encoders.declared import check_declared
from nnunet_fm.features.opening import open_encoder


@pytest.mark.parametrize(
    ("architecture", "card"),
    [
        ("amaes_unetb", "amaes_unetb.brains45k"),
        ("amaes_unetxl", "amaes_unetxl.brains45k"),
        ("swin_unetr48", "swin_unetr48.ct5050"),
        ("swin_unetr48", "brainsegfounder_swin48.ukb"),
        ("brainmvp_uniformer", "brainmvp_uniformer.mri16k"),
    ],
)
def test_the_orientation_of_the_pretraining_is_stated(architecture: str, card: str) -> None:
    with torch.device("meta"):
        assert orientation_of(build_encoder(architecture), card) == "RAS"


@pytest.mark.parametrize(
    ("architecture", "options", "stored"),
    [
        *(("amaes_unetb", {"width": 2}, code) for code in ("RAS", "LPS", "PIR", "SAR", "ial")),
        ("volume_testswin", {}, "LPS"),
        ("volume_testuniformer", {}, "LPS"),
        ("volume_testuniformer", {}, "PIR"),
    ],
)
def test_volumes_are_turned_to_the_pretraining(
    architecture: str, options: dict[str, Any], stored: str
) -> None:
    """A stored copy of a volume gives the maps of the volume, stored as the copy is."""
    plain = randomised(architecture, **options)
    turning = build_encoder(architecture, **options, image_orientation=stored).eval()
    turning.load_state_dict(plain.state_dict())
    right = torch.randn(1, 1, 32, 64, 32)  # (z, y, x) of a RAS volume
    for given, expected in zip(
        turning.features(restored(right, stored)), plain.features(right), strict=True
    ):
        torch.testing.assert_close(given, restored(expected, stored), rtol=1e-4, atol=1e-4)


def restored(array: Tensor, stored: str) -> Tensor:
    """Store the array of a RAS volume, (z, y, x), in another orientation."""
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(stored.upper()))
    channels = [
        apply_orientation(channel.numpy().transpose(2, 1, 0), change).transpose(2, 1, 0)
        for channel in array[0]
    ]
    return torch.from_numpy(np.stack(channels).copy())[None]


def test_features_extract_says_so_of_encoders_that_cannot_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = WeightCard("volume_test16.ras", "volume_test16", "x", "y", orientation="RAS")
    card = replace(card, spatial_dims=3)
    CARDS[card.name] = card
    try:
        torch.save(randomised("volume_test16").state_dict(), tmp_path / "w.pth")
        open_encoder(str(tmp_path / "w.pth"), card=card.name)
    finally:
        del CARDS[card.name]
    assert "volume_test16.ras was pretrained on RAS volumes" in caplog.text
    assert "image_orientation" not in caplog.text


@pytest.mark.parametrize("options", [{}, {"image_orientation": "LPS"}])
def test_features_extract_says_that_its_volumes_are_lps(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    open_encoder("amaes_unetb", options={"width": 2, **options})
    assert ("image_orientation=LPS" in caplog.text) == (not options)


@pytest.mark.parametrize("spacing", [None, [2.0, 2.0, 2.0]])
def test_features_extract_says_that_voxels_are_resized(
    spacing: list[float] | None, caplog: pytest.LogCaptureFixture
) -> None:
    open_encoder("volta3d_test8", options={"spacing": spacing}, shape=(60, 80, 64))
    said = "pretrained on voxels of 2 x 2 x 2 mm, and every brain is resized to 56 x 80 x 64"
    assert (said in caplog.text) == (spacing is not None)
    caplog.clear()
    given = {"spacing": (2.0, 2.0, 2.0)}
    _, recipe = open_encoder("volta3d_test8", options={"spacing": spacing}, **given)
    assert "pretrained on voxels" not in caplog.text
    assert recipe.preprocessing["spacing"] == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("code", ["LP", "LPP", "XYZ", "LRS", "", "LPSA"])
def test_an_orientation_is_three_letters(code: str) -> None:
    with pytest.raises(ValueError, match="image_orientation .* e.g. LPS for BraTS"):
        Turn("xyz", code)


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("amaes_unetb", {"widht": 3}, "Did you mean width.* takes image_orientation, width$"),
        ("volume_testbmmae", {"tokns": 1}, r"Did you mean tokens\?.*modalities, .*tokens"),
        ("dinov3_test16", {"qkv_bais": True}, r"Did you mean qkv_bias.*norm_eps, qkv_bias, rope"),
        ("dinov3_test16", {"model": "x"}, "unknown encoder option 'model'"),
        ("timm/vit_tiny_patch16_224", {"dpeth": 2}, "Did you mean depth"),
        ("helpers.own_encoders.OwnEncoder", {"width": 3}, "takes no options"),
        ("helpers.own_encoders.WithoutTaps", {}, "unexpected keyword argument 'taps'"),
        ("amaes_unetb", {"width": "wide"}, "cannot be built with the options"),
        ("dinov3_test16", {"embed_dim": "wide"}, "cannot be built"),
    ],
)
def test_options_that_an_encoder_does_not_take(
    architecture: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_encoder(architecture, **options)


@pytest.mark.parametrize(("name", "flag"), [("taps", "--taps"), ("card", "--card")])
def test_options_that_have_a_flag_of_their_own(name: str, flag: str) -> None:
    with pytest.raises(ValueError, match=f"type {flag}"):
        EncoderSource.resolve("dinov3_test16", options={name: "1"})


@pytest.mark.parametrize("name", ["TwoMaps", "WrongStride", "WrongChannels"])
def test_maps_that_differ_from_what_an_encoder_declares(name: str) -> None:
    whole = f"helpers.own_encoders.{name}"
    with pytest.raises(ValueError, match=r"feature_info and gives .*correct feature_info"):
        check_declared(build_encoder(whole), whole, {})


@pytest.mark.parametrize(("name", "options"), [("OwnEncoder", {}), ("ReadsValues", {"width": 8})])
def test_maps_that_are_as_declared(name: str, options: dict[str, Any]) -> None:
    whole = f"helpers.own_encoders.{name}"
    check_declared(build_encoder(whole, **options), whole, options)
