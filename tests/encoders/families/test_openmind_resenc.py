"""ResEnc-L of OpenMind, nnFoundation and FOMO: the published count, files and features."""

from pathlib import Path

import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from torch import Tensor, nn

from helpers.encoder_files import card_of, without_values
from nnunet_fm.encoders import build_encoder, load_encoder
from nnunet_fm.network.frozen import FrozenEncoderNetwork


def openmind(tmp_path: Path) -> tuple[ResidualEncoderUNet, Path]:
    """A small file as nnssl writes it: encoder and decoder, and its plan beside them."""
    torch.manual_seed(2)
    published = ResidualEncoderUNet(
        1, 3, [4, 6, 8], nn.Conv3d, 3, [1, 2, 2], [1, 1, 1], 2, [1, 1], True, nn.InstanceNorm3d,
        {"eps": 1e-5, "affine": True}, None, None, nn.LeakyReLU, {"inplace": True},
    )  # fmt: skip
    weights = {
        k: v for k, v in published.state_dict().items() if not k.startswith("decoder.encoder.")
    }
    torch.save(
        {"network_weights": weights, "nnssl_adaptation_plan": {"key_to_encoder": "encoder.stages"}},
        tmp_path / "f.pth",
    )
    return published.eval(), tmp_path / "f.pth"


def test_openmind_has_the_published_parameters_and_features(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = FrozenEncoderNetwork(1, 3, "openmind_resencl", decoder="pyramid")
    assert sum(p.numel() for p in network.encoder.parameters()) == 90_296_576
    assert [f.stride for f in network.encoder.feature_info] == [1, 2, 4, 8, 16, 32]
    published, file = openmind(tmp_path)
    encoder, report = load_encoder(file, "volume_testpyramid")
    assert (report.containers, report.prefixes, report.format) == (
        ["network_weights"],
        ["encoder."],
        "nnU-Net encoder",
    )
    assert set(report.dropped.values()) == {"decoder of the pretraining"}
    x = torch.randn(1, 1, 16, 12, 8)  # (z, y, x), as nnU-Net has them
    for found, expected in zip(encoder.features(x), published.encoder(x), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(encoder.embed(x), published.encoder(x)[-1].mean((2, 3, 4)))
    with pytest.raises(ValueError, match="largest stride 4"):
        encoder.features(torch.zeros(1, 1, 16, 12, 6))


def fomo_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of nnU-Net's residual encoder the names of FOMO's files."""
    renamed = {}
    for key, value in state.items():
        name = key.removeprefix("body.").replace("stem.convs.0.", "stem.conv1.")
        renamed[f"model.encoder.{name.replace('.norm.', '.norm_op.')}"] = value
    return renamed


def test_a_file_of_fomo_has_other_names_and_axes(tmp_path: Path) -> None:
    published, _ = openmind(tmp_path)
    state = fomo_names(published.encoder.state_dict())
    assert "model.encoder.stem.conv1.norm_op.weight" in state
    state["model.decoder.transpconvs.0.weight"] = torch.ones(2)
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    encoder, report = load_encoder(tmp_path / "last.ckpt", "volume_testpyramid")
    assert report.options == {"axis_order": "xyz"}  # shown by its names
    assert encoder.input_spec.orientation == "RAS"
    assert (report.prefixes, list(report.dropped)) == (
        ["model.", "encoder."],
        ["decoder.transpconvs.0.weight"],
    )
    x = torch.randn(1, 1, 16, 12, 8)  # (z, y, x), as nnU-Net has them
    expected = published.encoder(x.permute(0, 1, 4, 3, 2))
    for found, other in zip(encoder.features(x), expected, strict=True):
        torch.testing.assert_close(found, other.permute(0, 1, 4, 3, 2))
    as_lps = load_encoder(tmp_path / "last.ckpt", "volume_testpyramid", image_orientation="LPS")[0]
    turned = x.flip(3, 4)
    torch.testing.assert_close(as_lps.features(turned)[1].flip(3, 4), encoder.features(x)[1])


@pytest.mark.parametrize(
    ("file", "card"),
    [
        ("nnFoundationCNN/checkpoint_final.pth", "nnfoundation_resencl.mae"),
        ("ResEncL-OpenMind-VoCo/checkpoint_final.pth", "openmind_resencl.mae"),
    ],
)
def test_files_of_one_network_are_told_apart_by_their_folders(
    file: str, card: str, tmp_path: Path
) -> None:
    path = tmp_path / file
    path.parent.mkdir()
    state = {k.removeprefix("body."): v for k, v in without_values("openmind_resencl").items()}
    torch.save({"network_weights": {f"encoder.{k}": v for k, v in state.items()}}, path)
    assert card_of(path) == (card, "shapes and the published file's name")
    path.rename(tmp_path / "mine.pth")  # anybody's, as nnU-Net itself writes them
    assert card_of(tmp_path / "mine.pth")[0] == "openmind_resencl"


def test_a_file_in_fomos_names_is_never_taken_for_nnunets(tmp_path: Path) -> None:
    state = {"state_dict": fomo_names(without_values("openmind_resencl"))}
    (tmp_path / "AMAES_resenc_b_fomo300k").mkdir()
    for name in ("AMAES_resenc_b_fomo300k/last.ckpt", "last.ckpt"):
        torch.save(state, tmp_path / name)
    known = tmp_path / "AMAES_resenc_b_fomo300k" / "last.ckpt"
    assert card_of(known)[0] == "fomo_resencb.fomo300k"
    assert card_of(tmp_path / "last.ckpt")[0] == "openmind_resencl"
    folder = tmp_path / "ResEncL-OpenMind-against-FOMO"
    folder.mkdir()
    torch.save(state, folder / "last.ckpt")
    assert card_of(folder / "last.ckpt")[0] == "openmind_resencl"  # not OpenMind's card
    with pytest.raises(ValueError, match="names of format FOMO, and openmind_resencl.mae is"):
        load_encoder(known, "openmind_resencl.mae")


def test_images_are_turned_for_weights_of_a_known_orientation_alone() -> None:
    with pytest.raises(ValueError, match="on images as acquired, to which nothing can be turned"):
        build_encoder("volume_testpyramid", image_orientation="LPS")
    with pytest.raises(ValueError, match="axis_order 'yxz'; allowed: zyx, xyz"):
        build_encoder("volume_testpyramid", axis_order="yxz")


def test_nnfoundations_transformer_has_its_parameters(tmp_path: Path) -> None:
    with torch.device("meta"):
        encoder = build_encoder("nnfoundation_primus")
    assert sum(p.numel() for p in encoder.parameters()) == 551_364_704  # 674 M with its decoder
    assert encoder.get_parameter("eva.pos_embed").shape == (1, 13_824, 1056)  # 24^3 patches
    (tmp_path / "nnFoundationViT").mkdir()
    for name, card in (("nnFoundationViT/c.pth", "nnfoundation_primus.mae"), ("c.pth", "")):
        torch.save({"network_weights": without_values("nnfoundation_primus")}, tmp_path / name)
        assert card_of(tmp_path / name)[0] == (card or "nnfoundation_primus")
