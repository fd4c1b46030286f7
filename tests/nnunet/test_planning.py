"""The planner, on plans as nnU-Net writes them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.encoder_files import braindino, official
from helpers.plans import plan
from nnunet_fm.encoders import load_encoder, tensors_sha256
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.plan_options import PlanOptions
from nnunet_fm.nnunet.planning import write_plans


def test_a_weight_file_names_the_plans_and_is_identified_by_its_hash(
    stock_plans: Path, tmp_path: Path
) -> None:
    torch.save(braindino(official()), tmp_path / "braindino.pth")
    plans, words = plan(stock_plans, encoder=str(tmp_path / "braindino.pth"))
    assert plans["plans_name"] == "FM_braindino"
    arguments = plans["configurations"]["2d_fm256"]["architecture"]["arch_kwargs"]
    assert arguments["encoder"] == "dinov3_test16"
    assert arguments["encoder_options"] == {"norm_eps": 1e-6, "rope": "bfloat16"}
    assert arguments["taps"] == [0, 1, 2, 3]
    assert len(arguments["encoder_source"]["sha256"]) == 64
    assert "seed" not in arguments["encoder_source"]
    assert "RANDOM" not in words


def test_bundled_weights_are_named_by_their_card(stock_plans: Path) -> None:
    plans, words = plan(stock_plans, encoder="synth_vitt16")
    assert plans["plans_name"] == "FM_synth_vitt16"
    arguments = plans["configurations"]["2d_fm256"]["architecture"]["arch_kwargs"]
    assert arguments["encoder_source"].keys() == {"card", "sha256"}
    assert "RANDOM" not in words
    assert "pretrained on brains made by nnunet-fm" in words
    network = FrozenEncoderNetwork(4, 3, **arguments)
    network.load_encoder()
    _, report = load_encoder("synth_vitt16")
    assert report.card == arguments["encoder_source"]["card"]
    assert tensors_sha256(network.encoder.state_dict()) == report.sha256
    with pytest.raises(ValueError, match="synth_vitt16 names trained weights; remove --seed"):
        plan(stock_plans, encoder="synth_vitt16", seed=1)
    with pytest.raises(ValueError, match="--card x is for a weight file"):
        plan(stock_plans, encoder="synth_vitt16", card="x")


def test_ratio_and_subset_are_in_the_plans_and_their_name(stock_plans: Path) -> None:
    plans, words = plan(stock_plans, encoder="dinov3_test16", train_ratio=0.1, subset_seed=7)
    assert plans["plans_name"] == "FM_dinov3_test16_random_r010_s7"
    assert plans["train_subset"] == {"ratio": 0.1, "seed": 7, "rule": "nested"}
    assert "10 % of the training cases" in words
    other, _ = plan(
        stock_plans, encoder="dinov3_test16", train_ratio=0.125, subset_rule="reference"
    )
    assert other["plans_name"] == "FM_dinov3_test16_random_r012p50_reference"
    stock, words = plan(stock_plans, encoder="none", train_ratio=0.4)
    assert stock["plans_name"] == "FM_none_r040"
    assert set(stock["configurations"]) == {"2d", "3d_fullres"}
    assert "-tr SubsetTrainer -p FM_none_r040" in words


def test_the_stock_architecture_at_another_patch(stock_plans: Path) -> None:
    plans, words = plan(stock_plans, encoder="none", patch=(128,), fov="fit", batch_size=4)
    configuration = plans["configurations"]["2d_stock128"]
    assert configuration["batch_size"] == 4
    assert configuration["data_identifier"] == "nnUNetPlans_2d_fit128_1.875mm"
    assert "architecture" not in configuration
    assert "2d_stock128 0 -tr SubsetTrainer -p FM_none" in words
    with pytest.raises(ValueError, match="multiples of 8"):
        plan(stock_plans, encoder="none", patch=(100,))


def test_a_dataset_that_is_not_planned(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nnUNetv2_plan_and_preprocess"):
        write_plans(tmp_path, PlanOptions(encoder="dinov3_test16"))


def test_existing_plans_keep_their_decoder(stock_plans: Path) -> None:
    request: dict[str, Any] = {"encoder": "dinov3_test16", "output": "FM_x"}
    plans, words = plan(stock_plans, **request, decoder="primus")
    again, words = plan(stock_plans, **request)
    assert again == plans
    assert "decoder primus, as in these plans before" in words
    other, _ = plan(stock_plans, **request, patch=(64,))
    for name in ("2d_fm256", "2d_fm64"):
        assert other["configurations"][name]["architecture"]["arch_kwargs"]["decoder"] == "primus"
    with pytest.raises(ValueError, match="with another decoder, decoder_options, fusion. Give"):
        plan(stock_plans, **request, decoder="detail")
