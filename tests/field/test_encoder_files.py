"""Weight files as their authors and their users have them: read as what they are, or explained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets.unetr import UNETR
from monai.networks.nets.vit import ViT
from torch import Tensor

from helpers.encoder_files import (
    amaes_names,
    braindino,
    official,
    randomised,
    without_values,
)
from nnunet_fm.cli.demo import run_demo
from nnunet_fm.cli.main import main
from nnunet_fm.encoders import (
    CARDS,
    CheckpointError,
    EncoderSource,
    WeightCard,
    build_encoder,
    load_encoder,
    tensors_sha256,
)

State = dict[str, Tensor]


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


def test_a_file_of_one_channel_is_not_one_of_four(tmp_path: Path) -> None:
    state = without_values("swin_unetr48")
    torch.save({"state_dict": state}, tmp_path / "mine.pt")
    with pytest.raises(ValueError, match=r"patch_embed.proj.weight \[48, 1, .*where \[48, 4, "):
        load_encoder(tmp_path / "mine.pt", "brainsegfounder_swin48.brats")
    with pytest.raises(ValueError, match=r"\(legacy_merging\)"):
        load_encoder(tmp_path / "mine.pt")


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
        with pytest.raises(CheckpointError, match=r"trained further, .* --card volume_test16\."):
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
