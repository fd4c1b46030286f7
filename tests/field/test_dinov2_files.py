"""DINOv2: positions as the official hub resizes them, files of the training code."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers.encoder_files import randomised
from nnunet_fm.encoders import (
    CARDS,
    Encoder,
    EncoderSource,
    build_encoder,
    get_card,
    load_encoder,
)

State = dict[str, Tensor]


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
