"""Configurations that are added to plans written before."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.plans import plan
from nnunet_fm.encoders import tensors_sha256
from nnunet_fm.encoders.random_weights import build_random_as_torch_does
from nnunet_fm.nnunet.encoder_in_plans import encoder_source


def test_configurations_of_one_encoder_are_added_to_one_file(stock_plans: Path) -> None:
    plan(stock_plans, encoder="dinov3_test16", patch=(64,))
    plans, _ = plan(stock_plans, encoder="dinov3_test16", patch=(128,))
    assert {"2d_fm64", "2d_fm128"} <= set(plans["configurations"])
    again, _ = plan(stock_plans, encoder="dinov3_test16", patch=(128,))
    assert again == plans
    with pytest.raises(ValueError, match="another encoder.*-o FM_dinov3_test16_random_2"):
        plan(
            stock_plans,
            encoder="dinov3_test16",
            patch=(128,),
            seed=1,
            output="FM_dinov3_test16_random",
        )
    other, _ = plan(stock_plans, encoder="dinov3_test16", patch=(128,), seed=1)
    assert other["plans_name"] == "FM_dinov3_test16_random1"
    with pytest.raises(ValueError, match="not written by nnunet-fm"):
        plan(stock_plans, encoder="dinov3_test16", output="nnUNetPlans")


def test_random_weights_stay_those_of_the_plans_of_version_0_1(stock_plans: Path) -> None:
    """Which torch rounded by the processor: here as today, elsewhere they cannot be drawn."""
    before, _ = plan(stock_plans, encoder="dinov3_test16", patch=(64,), output="FM_x")
    path = stock_plans / "FM_x.json"
    drawn = build_random_as_torch_does("dinov3_test16", 0)
    for sha256, is_kept in ((tensors_sha256(drawn.state_dict()), True), ("0" * 64, False)):
        source_of(before, "2d_fm64")["sha256"] = sha256
        path.write_text(json.dumps(before))
        if not is_kept:
            with pytest.raises(ValueError, match="another encoder of 2d_fm64"):
                plan(stock_plans, encoder="dinov3_test16", patch=(128,), output="FM_x")
            continue
        for side in (64, 128):
            plans, _ = plan(stock_plans, encoder="dinov3_test16", patch=(side,), output="FM_x")
            assert source_of(plans, f"2d_fm{side}")["sha256"] == sha256
            loaded = encoder_source(plans, f"2d_fm{side}").load()
            assert tensors_sha256(loaded.state_dict()) == sha256


def source_of(plans: dict[str, Any], configuration: str) -> dict[str, Any]:
    arguments = plans["configurations"][configuration]["architecture"]["arch_kwargs"]
    return arguments["encoder_source"]


@pytest.mark.parametrize(
    ("other", "different"),
    [
        ({"taps": (0, 1)}, "taps"),
        ({"fov": "fit"}, "field_of_view"),
        ({"fusion": "fixed"}, "fusion"),
        ({"batch_size": 3}, "batch_size"),
        ({"train_ratio": 0.5}, "train_subset"),
        ({"training_seed": 1}, "training_seed"),
    ],
)
def test_an_existing_configuration_is_not_replaced_by_another(
    other: dict, different: str, stock_plans: Path
) -> None:
    plan(stock_plans, encoder="dinov3_test16", patch=(128,), fov="native", output="FM_x")
    before = (stock_plans / "FM_x.json").read_text()
    with pytest.raises(ValueError, match=f"exist already, with another.*{different}"):
        plan(
            stock_plans,
            **(
                {"encoder": "dinov3_test16", "patch": (128,), "fov": "native", "output": "FM_x"}
                | other
            ),
        )
    assert (stock_plans / "FM_x.json").read_text() == before


def test_stock_configurations_are_added_too_and_refuse_encoder_options(stock_plans: Path) -> None:
    plan(stock_plans, encoder="none", patch=(128,))
    plans, _ = plan(stock_plans, encoder="none", patch=(64,))
    assert {"2d", "2d_stock128", "2d_stock64"} <= set(plans["configurations"])
    for ignored in (
        {"taps": (1,)},
        {"fusion": "fixed"},
        {"decoder": "light"},
        {"card": "x"},
        {"seed": 3},
    ):
        with pytest.raises(ValueError, match="no meaning with --encoder none"):
            plan(stock_plans, encoder="none", **ignored)
    with pytest.raises(ValueError, match="--card x is for a weight file"):
        plan(stock_plans, encoder="dinov3_test16", card="x")
