"""Primus: OpenMind's files, dynamic-network-architectures' numbers, nnssl's token order."""

from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.primus import Primus
from torch import Tensor
from torch.nn import functional

from helpers.shuffled import shuffled
from nnunet_fm.encoders import build_encoder, load_encoder

WIDTH, HEADS = 24, 2


def published_primus() -> Primus:
    """Dynamic-network-architectures' own class, small."""
    return shuffled(
        Primus(1, WIDTH, (8,) * 3, 2, 4, HEADS, (32,) * 3, init_values=0.1, scale_attn_inner=True),
        7,
    )


def primus(tmp_path: Path, below: str = "", **options: Any) -> tuple[Primus, Any]:
    published = published_primus()
    state = {f"{below}{k}": v for k, v in published.state_dict().items()}
    torch.save(
        {"network_weights": state, "nnssl_adaptation_plan": {"key_to_encoder": "eva"}},
        tmp_path / "f.pth",
    )
    encoder, report = load_encoder(tmp_path / "f.pth", "volume_testprimus", **options)
    assert (report.format, report.prefixes, report.missing) == (
        "Primus",
        [below] if below else [],
        [],
    )
    assert set(report.dropped.values()) == {"decoder or head of the pretraining"}
    return published, encoder


def blocks_of(published: Primus, tokens: Tensor, rope: Tensor) -> list[Tensor]:
    found = []
    for block in published.eva.blocks:
        tokens = block(tokens, rope=rope)
        found.append(tokens)
    return [*found[:-1], published.eva.norm(found[-1])]


def test_primus_has_its_parameters_and_shapes() -> None:
    with torch.device("meta"):
        encoder = build_encoder("openmind_primusm")
        maps = encoder.features(torch.zeros(1, 1, 128, 128, 128))
    assert (
        sum(p.numel() for p in encoder.parameters()) == 150_997_536
    )  # 148.95 M with 4 channels at 128^3
    assert [tuple(m.shape) for m in maps] == [(1, 864, 16, 16, 16)] * 4
    assert encoder.taps == (3, 7, 11, 15)


@pytest.mark.parametrize("below", ["", "encoder."])
def test_primus_is_dynamic_network_architectures_own(below: str, tmp_path: Path) -> None:
    published, encoder = primus(tmp_path, below, token_order="whd")
    x = torch.randn(2, 1, 32, 32, 32)
    tokens = published.down_projection(x).flatten(2).transpose(1, 2)
    last = published.eva(tokens)[0].transpose(1, 2).unflatten(2, (4, 4, 4))
    torch.testing.assert_close(encoder.features(x)[-1], last, rtol=1e-4, atol=1e-4)


def test_tokens_of_nnssl_come_with_the_first_two_axes_exchanged(tmp_path: Path) -> None:
    """`b c w h d -> b (h w d) c`, positions by number: the same file, other features."""
    published, encoder = primus(tmp_path, token_order="hwd")
    x = torch.randn(1, 1, 32, 32, 32)
    w = published.down_projection(x)
    tokens = torch.stack([w[0, :, i, h, d] for h in range(4) for i in range(4) for d in range(4)])[
        None
    ]
    every = blocks_of(published, tokens + published.eva.pos_embed, published.eva.rope.get_embed())
    for tap, found in zip(encoder.taps, encoder.features(x), strict=True):
        for number, (h, i, d) in enumerate(
            (h, i, d) for h in range(4) for i in range(4) for d in range(4)
        ):
            torch.testing.assert_close(
                found[0, :, i, h, d], every[tap][0, number], rtol=1e-3, atol=1e-3
            )
    other = primus(tmp_path, token_order="whd")[1].features(x)[-1]
    assert (other - encoder.features(x)[-1]).norm() / other.norm() > 0.02


def test_primus_on_other_grids(tmp_path: Path) -> None:
    published, resized = primus(tmp_path, token_order="whd")
    _, cropped = primus(tmp_path, token_order="whd", positions="crop")
    x = torch.randn(1, 1, 16, 24, 32)
    cube = published.eva.pos_embed.transpose(1, 2).unflatten(2, (4, 4, 4))
    other = Primus(1, WIDTH, (8,) * 3, 2, 4, HEADS, (16, 24, 32))  # for its rotary positions
    tokens = published.down_projection(x).flatten(2).transpose(1, 2)
    for encoder, positions in (
        (resized, functional.interpolate(cube, (2, 3, 4), mode="trilinear")),
        (cropped, cube[:, :, 1:3, 0:3]),
    ):
        expected = blocks_of(
            published, tokens + positions.flatten(2).transpose(1, 2), other.eva.rope.get_embed()
        )
        last = expected[-1].transpose(1, 2).unflatten(2, (2, 3, 4))
        torch.testing.assert_close(encoder.features(x)[-1], last, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="positions 'crop' with a grid of"):
        cropped.features(torch.zeros(1, 1, 40, 32, 32))
    with pytest.raises(ValueError, match="token_order 'dhw'; allowed: hwd, whd"):
        build_encoder("volume_testprimus", token_order="dhw")


def test_simmim_is_recognised_by_the_folder_of_its_file(tmp_path: Path) -> None:
    """All of OpenMind's files are called checkpoint_final.pth."""
    with torch.device("meta"):
        shapes = build_encoder("openmind_primusm").state_dict()
    state = {k: torch.zeros(1).expand(v.shape) for k, v in shapes.items()}
    for folder, card in (("PrimusM-OpenMind-SimMIM", "simmim"), ("PrimusM-OpenMind-MAE", "mae")):
        (tmp_path / folder).mkdir()
        torch.save({"network_weights": state}, tmp_path / folder / "checkpoint_final.pth")
        _, report = load_encoder(tmp_path / folder / "checkpoint_final.pth")
        assert report.card == f"openmind_primusm.{card}"
        assert report.chosen_because == "shapes and the published file's name"
    (tmp_path / folder).rename(tmp_path / "downloads")
    with pytest.raises(
        ValueError, match=r"primusm.simmim and files of others share, .* numerics \(token_order\)"
    ):
        load_encoder(tmp_path / "downloads" / "checkpoint_final.pth")
