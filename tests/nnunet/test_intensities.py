"""Intensities of a configuration: nnU-Net's, or those of the encoder's pretraining."""

from pathlib import Path

import pytest

from helpers.plans import plan
from nnunet_fm.encoders.contract import Z_SCORE, Z_SCORE_EVERYWHERE, ZERO_TO_ONE
from nnunet_fm.nnunet.intensities import set_intensities

STOCK = {
    "data_identifier": "nnUNetPlans_2d",
    "normalization_schemes": ["ZScoreNormalization"] * 2,
    "use_mask_for_norm": [True] * 2,
}


def test_intensities_are_those_of_the_pretraining_unless_stock_ones_are_asked_for(
    stock_plans: Path,
) -> None:
    request = {
        "configuration": "3d_fullres",
        "encoder": "volume_testuniformer",
        "preset": "3d_fm32",
        "batch_size": 2,
    }
    plans, words = plan(stock_plans, **request)
    configuration = plans["configurations"]["3d_fm32"]
    assert configuration["normalization_schemes"] == ["RescaleTo01Normalization"] * 4
    assert configuration["use_mask_for_norm"] == [False] * 4
    assert configuration["data_identifier"] == "nnUNetPlans_2d_0_to_1"
    assert "nnUNetv2_preprocess -d 8 -plans_name FM_volume_testuniformer_random -c 3d_fm32" in words
    plans, words = plan(stock_plans, **request, intensity="stock", output="FM_stock")
    assert "normalization_schemes" not in plans["configurations"]["3d_fm32"]
    assert "intensities as nnU-Net has them; the encoder was pretrained on 0 to 1" in words
    with pytest.raises(ValueError, match="unknown intensity 'own'"):
        plan(stock_plans, **request, intensity="own")
    plans, _ = plan(
        stock_plans, configuration="3d_fullres", encoder="volume_test16", preset="3d_fm32"
    )  # z-score: nnU-Net's
    assert "data_identifier" not in plans["configurations"]["3d_fm32"]


@pytest.mark.parametrize(
    ("pretrained", "scheme"),
    [(Z_SCORE_EVERYWHERE, "ZScoreNormalization"), (ZERO_TO_ONE, "RescaleTo01Normalization")],
)
def test_the_configuration_gets_data_of_its_own(pretrained: str, scheme: str) -> None:
    configuration = {"data_identifier": "nnUNetPlans_2d_fit128_2mm"}
    (line,) = set_intensities(configuration, STOCK, pretrained, "encoder")
    assert configuration == {
        "normalization_schemes": [scheme] * 2,
        "use_mask_for_norm": [False] * 2,
        "data_identifier": f"nnUNetPlans_2d_fit128_2mm_{pretrained.replace(' ', '_')}",
    }
    assert line.startswith(f"intensities {pretrained}, as in the encoder's pretraining: {scheme}")


def test_stock_data_are_reused_where_they_have_the_intensities() -> None:
    configuration: dict[str, object] = {}
    assert set_intensities(configuration, STOCK, Z_SCORE, "encoder") == []
    without_mask = STOCK | {"use_mask_for_norm": [False] * 2}
    assert set_intensities(configuration, without_mask, Z_SCORE_EVERYWHERE, "encoder") == []
    (line,) = set_intensities(configuration, STOCK, "a CT window", "encoder")
    assert line.endswith("pretrained on a CT window, which nnU-Net does not have")
    (line,) = set_intensities(configuration, STOCK, ZERO_TO_ONE, "stock")
    assert line.endswith("pretrained on 0 to 1")
    assert configuration == {}
