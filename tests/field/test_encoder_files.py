"""Weight files as their authors and their users have them: read as what they are, or explained."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets.unetr import UNETR
from monai.networks.nets.vit import ViT
from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform
from torch import Tensor, nn
from torch.nn import functional

from helpers.encoder_files import amaes_names, braindino, official, randomised
from nnunet_fm.cli.demo import run_demo
from nnunet_fm.cli.main import main
from nnunet_fm.encoders import (
    CARDS,
    CheckpointError,
    Converted,
    Encoder,
    EncoderSource,
    LoadReport,
    WeightCard,
    build_encoder,
    get_card,
    intensity_of,
    load_encoder,
    orientation_of,
    register_cards,
    tensors_sha256,
)
from nnunet_fm.encoders.axes import Turn
from nnunet_fm.encoders.declared import check_declared
from nnunet_fm.encoders.loading.identify import identify
from nnunet_fm.encoders.registry import WITHDRAWN
from nnunet_fm.features.extraction import open_encoder
from nnunet_fm.nnunet.pretraining_overlap import seen_in_pretraining
from nnunet_fm_pretrain.engine.start import licence_of_derivative

State = dict[str, Tensor]


# ---- whose weights a file holds ----


@pytest.mark.parametrize(
    ("file", "architecture", "containers", "card"),
    [
        ("ResEncL-OpenMind-VoCo/checkpoint_final.pth", "openmind_resencl", [], "mae"),
        ("hub/models--MIC-DKFZ--ResEncL-OpenMind-MAE/snapshots/1f/checkpoint_final.pth",
         "openmind_resencl", [], "mae"),
        ("nnFoundationCNN/checkpoint_final.pth", "openmind_resencl", ["network_weights"], ""),
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
    found, reason = identify(tmp_path / file, Converted(tensors), containers)
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
        with pytest.raises(ValueError, match=r"no longer offered: .*CC BY-NC-ND.*--card dinov3_"):
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


# ---- the authors' own names ----


@pytest.mark.parametrize("decoder", ["rec_head", "pred_head"])
def test_amaes_decoders_are_left_out(decoder: str, tmp_path: Path) -> None:
    encoder = randomised("amaes_unetb", width=4)
    state = {
        f"model._orig_mod.encoder.{k}": v for k, v in amaes_names(encoder.state_dict()).items()
    }
    for part in ("upsample1.weight", "decoder_conv1.conv1.conv.weight", "ds_out_conv0.bias",
                 "out_conv.weight"):  # fmt: skip
        state[f"model._orig_mod.{decoder}.{part}"] = torch.ones(2)
    torch.save({"state_dict": state}, tmp_path / "unet_b_lw_dec_fullaug.pth")
    loaded, report = load_encoder(tmp_path / "unet_b_lw_dec_fullaug.pth", "amaes_unetb", width=4)
    assert tensors_sha256(loaded.state_dict()) == tensors_sha256(encoder.state_dict())
    assert set(report.dropped.values()) == {"decoder"}
    assert len(report.dropped) == 4


@pytest.mark.parametrize("architecture", ["volume_testprimus", "volume_testpyramid"])
def test_contrastive_files_of_openmind_have_projectors(architecture: str, tmp_path: Path) -> None:
    encoder = randomised(architecture)
    state = {f"encoder.{k.removeprefix('body.')}": v for k, v in encoder.state_dict().items()}
    state |= {"projector.0.weight": torch.ones(3, 3), "projector.2.bias": torch.ones(3)}
    torch.save({"network_weights": state, "trainer_name": "VoCo"}, tmp_path / "f.pth")
    loaded, report = load_encoder(tmp_path / "f.pth", architecture)
    assert tensors_sha256(loaded.state_dict()) == tensors_sha256(encoder.state_dict())
    assert len(report.dropped) == 2
    for name in ("openmind_resencl.mae", "openmind_primusm.mae", "openmind_primusm.simmim"):
        assert CARDS[name].ignored  # as these architectures have


def test_positions_of_smaller_cubes_are_read_from_the_file(tmp_path: Path) -> None:
    small = randomised("volume_testprimus", image_size=16)  # a grid of 2, where 4 is usual
    torch.save({"network_weights": small.state_dict()}, tmp_path / "f.pth")
    loaded, report = load_encoder(tmp_path / "f.pth", "volume_testprimus")
    assert report.options == {"image_size": 16}
    assert loaded.input_spec.native_size == (16, 16, 16)
    x = torch.randn(1, 1, 16, 16, 16)
    torch.testing.assert_close(loaded.features(x), small.features(x))
    again = EncoderSource.from_plans(EncoderSource.resolve(
        str(tmp_path / "f.pth"), "volume_testprimus").to_plans())  # fmt: skip
    assert tensors_sha256(again.load().state_dict()) == report.sha256


@pytest.mark.parametrize("channels", [1, 2])
def test_the_uk_biobank_file_is_read_with_the_channels_that_it_has(
    channels: int, tmp_path: Path
) -> None:
    modalities = None if channels == 1 else ["T1", "T2"]
    with torch.device("meta"):
        shapes = build_encoder("swin_unetr48", modalities=modalities).state_dict()
    state = {k: torch.zeros(()).expand(v.shape) for k, v in shapes.items()}
    torch.save({"state_dict": state}, tmp_path / "model_weights_UKB-pretrain.pt")
    encoder, report = load_encoder(tmp_path / "model_weights_UKB-pretrain.pt")
    assert (report.card, encoder.in_channels) == ("brainsegfounder_swin48.ukb", channels)
    assert encoder.input_spec.modalities == (None if channels == 1 else ("T1", "FLAIR"))
    assert report.options["legacy_merging"] is True


# ---- DINOv2 ----


def plain_positions(positions: Tensor, rows: int, columns: int) -> Tensor:
    """DINOv2's `interpolate_pos_encoding` with an offset of 0.1, written out."""
    side = int((positions.shape[1] - 1) ** 0.5)
    patches = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factors = ((rows + 0.1) / side, (columns + 0.1) / side)
    resized = functional.interpolate(patches, scale_factor=factors, mode="bicubic")
    assert resized.shape[2:] == (rows, columns)
    return torch.cat([positions[:, :1], resized.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def plain_dinov2(vit: nn.Module, x: Tensor) -> Tensor:
    """Tokens after the final norm, computed step by step."""
    patches = functional.conv2d(
        x, vit.patch_embed.proj.weight, vit.patch_embed.proj.bias, stride=14
    )
    rows, columns = patches.shape[2:]
    tokens = torch.cat([vit.cls_token.expand(len(x), -1, -1), patches.flatten(2).mT], 1)
    same = (rows, columns) == (4, 4)
    tokens = tokens + (vit.pos_embed if same else plain_positions(vit.pos_embed, rows, columns))
    for block in vit.blocks:
        tokens = block(tokens)
    return vit.norm(tokens)


@pytest.mark.parametrize("size", [(56, 56), (28, 28), (70, 70), (42, 84), (126, 98)])
def test_dinov2_resizes_its_positions_as_the_official_hub(size: tuple[int, int]) -> None:
    source = EncoderSource.resolve("dinov2_test14")  # new uses of the name, as files without one
    encoder = source.load()
    nn.init.normal_(encoder.vit.pos_embed)
    x = torch.randn(2, 3, *size)
    tokens = plain_dinov2(encoder.vit, x)
    torch.testing.assert_close(encoder.embed(x), tokens[:, 0])
    last = encoder.features(x)[-1]
    torch.testing.assert_close(last.flatten(2).mT, tokens[:, 1:])


def test_released_dinov2_cards_name_the_resizing_of_the_hub() -> None:
    for size in ("s", "b", "l", "g"):
        assert CARDS[f"dinov2_vit{size}14.lvd142m"].options == {"positions": "offset"}
        assert CARDS[f"dinov2_vit{size}14_reg4.lvd142m"].options == {}
        assert get_card(f"dinov2_vit{size}14").options == {"positions": "offset"}


def test_plans_of_version_0_1_keep_the_resizing_that_they_were_trained_with() -> None:
    x = torch.randn(1, 3, 70, 70)
    former = randomised("dinov2_test14").features(x)[-1]
    official_one = randomised("dinov2_test14", positions="offset").features(x)[-1]
    assert (former - official_one).norm() / official_one.norm() > 1e-3
    with pytest.raises(ValueError, match="Did you mean offset"):
        build_encoder("dinov2_test14", positions="ofset")


def dinov2_names(encoder: Encoder, chunks: bool) -> State:
    """Give tensors their official names, with the blocks in two chunks as FSDP has them."""
    state = {k.removeprefix("vit."): v for k, v in encoder.state_dict().items()}
    state["mask_token"] = torch.zeros(1, 32)
    if chunks:
        for number in range(4):
            for key in [k for k in state if k.startswith(f"blocks.{number}.")]:
                state[key.replace("blocks.", f"blocks.{number // 2}.", 1)] = state.pop(key)
    return state


@pytest.mark.parametrize("form", ["teacher file", "whole state", "chunks", "one channel"])
def test_training_checkpoints_of_dinov2_are_read(form: str, tmp_path: Path) -> None:
    """Patches of 16, images of 96 pixels, heads, and a student beside the teacher."""
    options = {"patch_size": 16, "image_size": 96, "positions": "offset"}
    if form == "one channel":
        options["in_chans"] = 1
    encoder = randomised("dinov2_test14", **options)
    names = dinov2_names(encoder, chunks=form == "chunks")
    heads = {
        "dino_head.mlp.0.weight": torch.ones(2),
        "ibot_head.last_layer.weight_g": torch.ones(2),
    }
    teacher = {f"backbone.{k}": v for k, v in names.items()} | heads
    content: dict[str, Any] = {"teacher": teacher}
    if form == "whole state":
        both = {f"teacher.{k}": v for k, v in teacher.items()}
        both |= {f"student.{k}": v + 1 for k, v in teacher.items()}
        content = {"model": both | {"dino_loss.center": torch.ones(2)}, "iteration": 99}
    torch.save(content, tmp_path / "teacher_checkpoint.pth")
    loaded, report = load_encoder(tmp_path / "teacher_checkpoint.pth")
    assert report.card == "dinov2_test14.trained"
    assert report.options == options
    x = torch.randn(1, loaded.in_channels, 64, 80)
    torch.testing.assert_close(loaded.embed(x), encoder.embed(x))
    assert report.dropped["dino_head.mlp.0.weight"] == "pretraining head"
    if form == "whole state":
        reason = "student of the training; the teacher is used"
        assert report.dropped["student.backbone.cls_token"] == reason


# ---- files that are something else, and what to do ----


class Trouble:
    """An object that only a pickle can hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("never",))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model_0000099.rank_0.pth", {"model": {"a": torch.ones(1)}, "optimizer": Trouble()},
         r"one process wrote .*teacher_checkpoint\.pth"),
        ("BrainIAC.ckpt", {"state_dict": {"a": torch.ones(1)}, "hyper_parameters": Trouble()},
         r"torch\.load\('BrainIAC\.ckpt', weights_only=False\)\['state_dict'\]"),
        ("dino.pth", {"teacher": {"a": torch.ones(1)}, "args": Trouble()}, r"\['teacher'\]"),
        ("odd.pth", {"a": torch.ones(1), "args": Trouble()}, r"weights_only=False\), 'tensors"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_named_with_the_way_out(
    file: str, content: dict[str, Any], message: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / file)
    with pytest.raises(CheckpointError, match=message):
        load_encoder(tmp_path / file)


def test_the_way_out_of_a_pickle_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"state_dict": braindino(official())["teacher"], "callbacks": Trouble()}
    torch.save(content, tmp_path / "brain.ckpt")
    with pytest.raises(CheckpointError) as refusal:
        load_encoder(tmp_path / "brain.ckpt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.print", lambda *_: None)
    command = str(refusal.value).split("that file: ")[1].split(". Details")[0]
    exec(command, {"torch": torch})
    assert load_encoder(tmp_path / "tensors.pth", "dinov3_test16.trained")[1].matched > 0


TINY = {"hidden_size": 24, "mlp_dim": 48, "num_heads": 2}


def fine_tuned(form: str) -> tuple[State, ViT]:
    """What BrainIAC's downstream scripts save: a classifier, or UNETR and a copy of the ViT."""
    torch.manual_seed(3)
    if form == "classifier":
        vit = ViT(1, (48,) * 3, (16,) * 3, num_layers=8, **TINY)
        state = {f"model.backbone.backbone.{k}": v for k, v in vit.state_dict().items()}
        extra = {
            "model.classifier.fc.weight": torch.ones(1, 24),
            "criterion.pos_weight": torch.ones(1),
        }
        return state | extra, vit
    network = UNETR(1, 1, (48,) * 3, feature_size=8, **TINY)
    vit = ViT(1, (48,) * 3, (16,) * 3, num_layers=12, **TINY)
    state = {f"model.unetr.{k}": v for k, v in network.state_dict().items()}
    unused = {f"model.vit.{k}": v for k, v in vit.state_dict().items()}
    return state | unused, network.vit


@pytest.mark.parametrize("form", ["classifier", "segmentation"])
def test_fine_tuned_brainiac_is_told_from_the_pretrained_one(form: str, tmp_path: Path) -> None:
    state, vit = fine_tuned(form)
    options = {} if form == "classifier" else {"depth": 12}
    torch.save({"state_dict": state, "hyper_parameters": {"lr": 1e-3}}, tmp_path / "w.ckpt")
    published = WeightCard("volume_test16.v2", "volume_test16", "x", "y", spatial_dims=3)
    CARDS[published.name] = published
    try:
        with pytest.raises(CheckpointError, match=r"trained further, .* --card volume_test16 to"):
            load_encoder(tmp_path / "w.ckpt", published.name, **options)
    finally:
        del CARDS[published.name]
    encoder, report = load_encoder(tmp_path / "w.ckpt", "volume_test16", **options)
    given = {f"vit.{k}": v for k, v in vit.state_dict().items() if "cross_attn" not in k}
    assert all(torch.equal(value, given[key]) for key, value in encoder.state_dict().items())
    assert "head of a fine-tuning" in report.dropped.values()


@pytest.mark.parametrize("command", ["verify", "resolve"])
def test_a_folder_is_no_file(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "PrimusM-OpenMind-MAE"
    folder.mkdir()
    (folder / "checkpoint_final.pth").touch()
    message = "is a folder; give a file in it: checkpoint_final.pth"
    if command == "verify":
        assert main(["encoders", "verify", str(folder)]) == 2
        assert message in capsys.readouterr().err
        return
    with pytest.raises(CheckpointError, match=message):
        EncoderSource.resolve(str(folder))
    (folder / "checkpoint_final.pth").unlink()
    (folder / "__0_0.distcp").touch()
    with pytest.raises(CheckpointError, match=r"distributed checkpoint.*teacher_checkpoint\.pth"):
        EncoderSource.resolve(str(folder))


def test_a_folder_may_have_the_name_of_an_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dinov3_test16").mkdir()
    monkeypatch.chdir(tmp_path)
    assert EncoderSource.resolve("dinov3_test16").seed == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [("gone.pth", "does not exist"), ("volume_test16", "an encoder of volumes; the demo trains")],
)
def test_the_demo_checks_its_encoder_first(given: str, message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_demo(tmp_path / "demo", given)
    assert not (tmp_path / "demo").exists()


# ---- orientation ----


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


@pytest.mark.parametrize("options", [{}, {"image_orientation": "LPS"}])
def test_features_extract_says_that_its_volumes_are_lps(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    open_encoder("amaes_unetb", options={"width": 2, **options})
    assert ("image_orientation=LPS" in caplog.text) == (not options)


@pytest.mark.parametrize("code", ["LP", "LPP", "XYZ", "LRS", "", "LPSA"])
def test_an_orientation_is_three_letters(code: str) -> None:
    with pytest.raises(ValueError, match="image_orientation .* e.g. LPS for BraTS"):
        Turn("xyz", code)


# ---- options, and what is declared ----


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("amaes_unetb", {"widht": 3}, "Did you mean width.* takes image_orientation, width$"),
        ("volume_testbmmae", {"tokns": 1}, r"Did you mean tokens\?.*modalities, .*tokens"),
        ("dinov3_test16", {"qkv_bais": True}, r"Did you mean qkv_bias.*norm_eps, qkv_bias, rope"),
        ("dinov3_test16", {"model": "x"}, "unknown encoder option 'model'"),
        ("timm/vit_tiny_patch16_224", {"dpeth": 2}, "Did you mean depth"),
        ("helpers.own_encoders.OwnEncoder", {"width": 3}, "takes no options"),
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
