"""Weight cards: whose weights a file holds, under which licence; cards are checked."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.encoder_files import braindino, official, randomised
from nnunet_fm.encoders import (
    CARDS,
    CheckpointError,
    Converted,
    EncoderSource,
    LoadReport,
    WeightCard,
    build_encoder,
    get_card,
    intensity_of,
    load_encoder,
    register_cards,
)
from nnunet_fm.encoders.licence import licence_of_derivative
from nnunet_fm.encoders.loading.identify import identify
from nnunet_fm.encoders.registry import WITHDRAWN
from nnunet_fm.nnunet.pretraining_overlap import seen_in_pretraining


@pytest.mark.parametrize(
    ("file", "architecture", "containers", "card"),
    [
        ("ResEncL-OpenMind-VoCo/checkpoint_final.pth", "openmind_resencl", [], "mae"),
        ("hub/models--MIC-DKFZ--ResEncL-OpenMind-MAE/snapshots/1f/checkpoint_final.pth",
         "openmind_resencl", [], "mae"),
        ("nnFoundationCNN/checkpoint_final.pth", "openmind_resencl", ["network_weights"],
         "nnfoundation_resencl.mae"),
        ("ResEncL-MissingPiece-MAE/checkpoint_final.pth", "openmind_resencl", [], ""),
        ("nnUNet_results/fold_0/checkpoint_best.pth", "openmind_resencl", ["network_weights"], ""),
        ("PrimusM-OpenMind-SimCLR/checkpoint_final.pth", "openmind_primusm", [], "mae"),
        ("models--MIC-DKFZ--PrimusM-OpenMind-SimMIM/snapshots/1f/checkpoint_final.pth",
         "openmind_primusm", [], "simmim"),
        ("unet_b_lw_dec_fullaug.pth", "amaes_unetb", [], "brains45k"),
        ("fomo25_unet_b.ckpt", "amaes_unetb", ["state_dict"], ""),
        ("BrainIAC.ckpt", "brainiac_vitb16", ["state_dict"], "v2"),
        ("my_mae_vit.pt", "brainiac_vitb16", [], ""),
        ("models--ricklisz123--MedDINOv3-ViTB-16-CT-3M/snapshots/1f/model.pth",
         "dinov3_vitb16", ["teacher"], "meddinov3_vitb16.ct3m"),
        ("my_run/model.pth", "dinov3_vitb16", ["teacher"], "trained"),
        ("dinov2_vits14_pretrain.pth", "dinov2_vits14", [], "lvd142m"),
        ("models--timm--vit_small_patch14_dinov2.lvd142m/snapshots/1f/model.safetensors",
         "dinov2_vits14", [], "lvd142m"),
        ("dinov2_of_our_hospital.pth", "dinov2_vits14", [], "trained"),
        ("dinov2_vits14_reg4_pretrained_mri.pth", "dinov2_vits14_reg4", ["teacher"], "trained"),
        ("finetune_lvd142m/epoch_9.pth", "dinov2_vits14", ["teacher"], "trained"),
        ("eval/training_9/teacher_checkpoint.pth", "dinov2_vits14", ["teacher"], "trained"),
        ("eval/training_9/teacher_checkpoint.pth", "dinov2_vits14_reg4", ["teacher"], "trained"),
        ("dinov2_vits14_reg4_pretrain.pth", "dinov2_vits14_reg4", [], "lvd142m"),
    ],
)  # fmt: skip
def test_a_licence_is_stated_for_published_files_alone(
    file: str, architecture: str, containers: list[str], card: str, tmp_path: Path
) -> None:
    with torch.device("meta"):
        tensors = build_encoder(architecture).state_dict()
    key_format = "nnU-Net encoder" if architecture == "openmind_resencl" else None
    found, reason = identify(tmp_path / file, Converted(tensors), containers, key_format=key_format)
    tagged = card if "." in card else f"{architecture}.{card}"
    assert found.name == (tagged if card else architecture)
    if not card:
        assert found.licence == "as its author says"
        assert not found.pretrained_on
        assert "licence and pretraining data are unknown" in reason


def test_registers_of_dinov2_are_not_guessed() -> None:
    """The hub and the training code resize their positions in two ways."""
    with torch.device("meta"):
        tensors = build_encoder("dinov2_vits14_reg4").state_dict()
    with pytest.raises(CheckpointError, match=r"different numerics \(positions\).*--card NAME"):
        identify(Path("model.pth"), Converted(tensors), [])


def test_a_withdrawn_card_is_explained_and_its_plans_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "flexict_vitb16.ct" not in CARDS
    for name in ("flexict_vitb16", "flexict_vitb16.ct"):
        with pytest.raises(
            ValueError, match=r"no longer offered: .*flexict_vit8.ct2d.*--card dinov3_"
        ):
            get_card(name)
    torch.save(braindino(official()), tmp_path / "ct.pth")
    plans = EncoderSource.resolve(str(tmp_path / "ct.pth")).to_plans()
    plans["encoder_source"]["card"] = "flexict_vitb16.ct"  # of version 0.1; the network is smaller
    former = replace(WITHDRAWN["flexict_vitb16.ct"], instead="dinov3_test16.trained")
    monkeypatch.setitem(WITHDRAWN, former.name, former)
    assert EncoderSource.from_plans(plans).load().depth == 4


@pytest.mark.parametrize(
    "dataset",
    ["Dataset219_AMOS2022", "Dataset017_BTCV", "Dataset220_KiTS2023", "Dataset004_LiTS",
     "Dataset003_Liver"],
)  # fmt: skip
def test_meddinov3_warns_of_the_benchmarks_that_it_saw(dataset: str) -> None:
    assert seen_in_pretraining(CARDS["meddinov3_vitb16.ct3m"].pretrained_on, dataset)


def test_meddinov3_states_its_ct_window() -> None:
    with torch.device("meta"):
        encoder = build_encoder("dinov3_vitb16")
    assert "-1000 to 1000 HU" in intensity_of(encoder, "meddinov3_vitb16.ct3m")


@pytest.mark.parametrize(
    ("carried", "expected"),
    [
        ("", "a derivative of swin_unetr48.ct5050, .*: Apache-2.0"),
        ("CC0", "a derivative of swin_unetr48.ct5050, .*: CC0"),
        ("a derivative of x, to be passed on", "a derivative of x, to be passed on"),
    ],
)
def test_a_warm_start_passes_on_the_licence_of_its_own_file(carried: str, expected: str) -> None:
    about = {"licence": carried} if carried else {}
    card = "swin_unetr48.ct5050"
    report = LoadReport("w.pt", "", card, "", {}, [], [], "", 0, 0, {}, [], about=about)
    note = licence_of_derivative(report)
    assert re.match(expected, note)
    assert "DINOv3" not in note


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "no_tag"}, "names as family_arch.weights"),
        ({"architecture": "acme_vitb16"}, "unknown encoder architecture 'acme_vitb16'"),
        ({"options": {"norm_epsilon": 1e-6}}, "Did you mean norm_eps"),
        ({"ignored": ("head[.*",)}, "no regular expression"),
        ({"spatial_dims": 4}, "spatial_dims 4; allowed: 2, 3"),
        ({"name": "synth_vitt16.v1"}, "already registered"),
    ],
)
def test_a_card_is_checked_when_it_is_registered(fields: dict[str, Any], message: str) -> None:
    given = {
        "name": "acme.brains",
        "architecture": "dinov3_test16",
        "licence": "MIT",
        "source": "x",
    }
    with pytest.raises(ValueError, match=message):
        register_cards(WeightCard(**{**given, **fields}))
    assert "acme.brains" not in CARDS


def test_texts_for_tuples_are_refused() -> None:
    """They would be read letter by letter; the tests' own check of types is passed by here."""
    card = replace(CARDS["dinov3_test16.trained"])
    object.__setattr__(card, "files", "acme.pth")
    with pytest.raises(ValueError, match=r"files is 'acme\.pth'; allowed: a tuple of texts"):
        card.__post_init__()


def test_a_card_of_another_dimension_is_refused_when_it_is_used(tmp_path: Path) -> None:
    torch.save(randomised("volume_testpyramid").state_dict(), tmp_path / "w.pth")
    card = WeightCard("acme.brains", "volume_testpyramid", "MIT", "x")  # spatial_dims is 2
    register_cards(card)
    try:
        with pytest.raises(ValueError, match="spatial_dims=2, and its architecture .* has 3"):
            load_encoder(tmp_path / "w.pth", "acme.brains")
    finally:
        del CARDS["acme.brains"]
