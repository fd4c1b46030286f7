"""The card of a file of a 3-D encoder: found by its tensors and its published name."""

from pathlib import Path

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinTransformer

from nnunet_fm.encoders import CARDS, build_encoder, load_encoder
from nnunet_fm.encoders.cards import intensity_of


@pytest.mark.parametrize(
    ("file", "channels", "card"),
    [
        ("model_weights_BRATS-pretrain.pt", 4, "brainsegfounder_swin48.brats"),
        ("model_weights_UKB-pretrain.pt", 2, "brainsegfounder_swin48.ukb"),
        ("model_weights_ATLAS-pretrain.pt", 2, "brainsegfounder_swin48.atlas"),
    ],
)
def test_brainsegfounder_is_known_by_its_channels_and_its_name(
    file: str, channels: int, card: str, tmp_path: Path
) -> None:
    published = SwinTransformer(channels, 48, (7,) * 3, (2,) * 3, (2, 2, 2, 2), (3, 6, 12, 24))
    content = {
        f"module.swinViT.{k.replace('.mlp.linear', '.mlp.fc')}": v
        for k, v in published.state_dict().items()
    }
    content |= {
        "module.rotation_head.weight": torch.zeros(4, 2),
        "module.contrastive_head.bias": torch.zeros(3),
    }
    torch.save(
        {"state_dict": content | {"module.conv.conv.weight": torch.zeros(1)}}, tmp_path / file
    )
    encoder, report = load_encoder(tmp_path / file)
    assert (report.card, encoder.in_channels) == (card, channels)
    assert encoder.input_spec.modalities == tuple(CARDS[card].options["modalities"])
    assert report.options["legacy_merging"] is True
    (tmp_path / file).rename(
        tmp_path / "mine_brats_swin.pt"
    )  # of anybody: any order of channels, any MONAI
    with pytest.raises(
        ValueError, match=r"files of others share, .* numerics \(legacy_merging, modalities\)"
    ):
        load_encoder(tmp_path / "mine_brats_swin.pt")
    mine, _ = load_encoder(
        tmp_path / "mine_brats_swin.pt", "swin_unetr48", modalities=["T1"] * channels
    )
    assert mine.in_channels == channels


@pytest.mark.parametrize(
    ("architecture", "file", "card"),
    [
        ("bmmae_vitb16", "bmmae.pth", "bmmae_vitb16.brats2021"),
        ("bmmae_vitb16", "bmmae_tcga.pth", "bmmae_vitb16.notcga"),
        ("brainiac_vitb16", "brainiac_T1.pt", "brainiac_vitb16.v2"),
        ("brainiac_vitb16", "volta_t1.pt", "volta3d_vitb16.t1"),
        ("brainmvp_uniformer", "BrainMVP_uniformer.pt", "brainmvp_uniformer.mri16k"),
    ],
)
def test_published_names_find_their_card(
    architecture: str, file: str, card: str, tmp_path: Path
) -> None:
    with torch.device("meta"):
        shapes = build_encoder(architecture).state_dict()
    torch.save({k: torch.zeros(()).expand(v.shape) for k, v in shapes.items()}, tmp_path / file)
    assert load_encoder(tmp_path / file)[1].card == card


def test_the_nearest_encoder_of_a_file_of_unknown_names_is_reported(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = build_encoder("brainmvp_uniformer").state_dict().values()
    torch.save(
        {f"w{n}": torch.zeros(()).expand(v.shape) for n, v in enumerate(shapes)},
        tmp_path / "odd.pt",
    )
    with pytest.raises(
        ValueError,
        match=r"Nearest by shapes: brainmvp_uniformer.mri16k, with (\d+) of its \1 tensors",
    ):
        load_encoder(tmp_path / "odd.pt")


def test_intensities_are_the_cards_where_the_architecture_has_others() -> None:
    with torch.device("meta"):
        vit, swin = build_encoder("brainiac_vitb16"), build_encoder("swin_unetr48")
    assert intensity_of(vit, "brainiac_vitb16.v2") == "z-score"
    assert intensity_of(vit, "volta3d_vitb16.t1") == "0 to 1"
    assert "CT" in intensity_of(swin, "swin_unetr48.ct5050")
    assert intensity_of(swin, "mine") == "z-score"
