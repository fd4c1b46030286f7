"""BM-MAE: its authors' files and the numbers of a plain forward."""

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.blocks.patchembedding import PatchEmbeddingBlock
from monai.networks.blocks.transformerblock import TransformerBlock
from torch import Tensor, nn
from torch.nn import functional

from helpers.shuffled import shuffled
from nnunet_fm.encoders import build_encoder, load_encoder
from nnunet_fm.encoders.families.bmmae import TOKENIZERS

WIDTH, HEADS, DEPTH = 24, 2, 8
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # MONAI's own class


class PlainBmmae(nn.Module):
    """As its authors describe it: one tokenizer per sequence, one transformer over all tokens."""

    def __init__(self, side: int = 48) -> None:
        super().__init__()
        names = TOKENIZERS.values()
        self.tokenizers = nn.ModuleDict(
            {n: nn.ModuleDict({"patch_embedding": embedding(side)}) for n in names}
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(WIDTH, 48, HEADS, qkv_bias=True) for _ in range(DEPTH)
        )
        self.norm, self.cls_token = nn.LayerNorm(WIDTH), nn.Parameter(torch.zeros(1, 1, WIDTH))

    def tokens(self, x: dict[str, Tensor]) -> list[Tensor]:
        return [self.tokenizers[name]["patch_embedding"](volume) for name, volume in x.items()]

    def run(self, tokens: Tensor) -> list[Tensor]:
        found = []
        for block in self.blocks:
            tokens = block(tokens)
            found.append(tokens)
        return [*found[:-1], self.norm(found[-1])]


def embedding(side: int) -> PatchEmbeddingBlock:
    return PatchEmbeddingBlock(
        1, (side,) * 3, (16,) * 3, WIDTH, HEADS, "conv", pos_embed_type="sincos"
    )


def bmmae(tmp_path: Path, **options: Any) -> tuple[PlainBmmae, Any]:
    published = shuffled(PlainBmmae(), 0)
    state = {
        **published.state_dict(),
        "decoder.mask_token": torch.zeros(1),
        "decoder.blocks.0.x": torch.zeros(2),
    }
    torch.save(state, tmp_path / "bmmae.pth")
    encoder, report = load_encoder(tmp_path / "bmmae.pth", "volume_testbmmae", **options)
    assert (report.format, report.missing) == ("BM-MAE", [])
    assert set(report.dropped.values()) == {
        "decoder of the pretraining",
        "cross attention, not used in a plain ViT",
    }
    return published, encoder


def volumes(x: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Channels by sequence, as the authors read them: (x, y, z)."""
    return {name: x[:, i : i + 1].permute(0, 1, 4, 3, 2) for i, name in enumerate(names)}


def as_map(tokens: Tensor, shape: torch.Size) -> Tensor:
    grid = [side // 16 for side in reversed(shape[2:])]
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid).permute(0, 1, 4, 3, 2)


def test_bmmae_has_its_parameters_and_shapes() -> None:
    with torch.device("meta"):
        encoder = build_encoder("bmmae_vitb16")
        maps = encoder.features(torch.zeros(1, 4, 128, 128, 128))
    assert sum(p.numel() for p in encoder.parameters()) == 70_885_632
    assert [tuple(m.shape) for m in maps] == [(1, 768, 8, 8, 8)] * 4
    assert encoder.input_spec.modalities == ("T1", "T1c", "T2", "FLAIR")


def test_native_bmmae_averages_over_the_sequences_after_every_block(tmp_path: Path) -> None:
    order = ["FLAIR", "T1", "T2"]  # any order, and one missing
    published, encoder = bmmae(tmp_path, modalities=order)
    x = torch.randn(2, 3, 48, 48, 48)
    every = published.run(torch.cat(published.tokens(volumes(x, ["flair", "t1", "t2"])), 1))
    for tap, found in zip(encoder.taps, encoder.features(x), strict=True):
        mean = torch.stack(every[tap].split(27, 1)).mean(0)
        torch.testing.assert_close(found, as_map(mean, x.shape), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        bmmae(tmp_path, modalities=order, pool="mean")[1].embed(x), every[-1].mean(1)
    )
    tokens = [
        published.cls_token.expand(2, -1, -1),
        *published.tokens(volumes(x, ["flair", "t1", "t2"])),
    ]
    torch.testing.assert_close(
        encoder.embed(x), published.run(torch.cat(tokens, 1))[-1][:, 0], rtol=1e-4, atol=1e-4
    )


def test_fused_bmmae_is_the_mean_of_the_tokens_and_of_the_kernels(tmp_path: Path) -> None:
    published, encoder = bmmae(tmp_path, tokens="fused")
    names = list(TOKENIZERS.values())
    x = torch.randn(1, 4, 48, 48, 48)
    kernels = (
        torch.cat(
            [published.tokenizers[n]["patch_embedding"].patch_embeddings.weight for n in names], 1
        )
        / 4
    )
    biases = [published.tokenizers[n]["patch_embedding"].patch_embeddings.bias for n in names]
    patches = functional.conv3d(
        x.permute(0, 1, 4, 3, 2), kernels, torch.stack(biases).mean(0), stride=16
    )
    positions = published.tokenizers["t1"]["patch_embedding"].position_embeddings
    every = published.run(patches.flatten(2).transpose(1, 2) + positions)
    for tap, found in zip(encoder.taps, encoder.features(x), strict=True):
        torch.testing.assert_close(found, as_map(every[tap], x.shape), rtol=1e-3, atol=1e-3)


def test_bmmae_recomputes_its_positions_for_other_sizes(tmp_path: Path) -> None:
    published, encoder = bmmae(tmp_path, modalities=["T1c"])
    x = torch.randn(1, 1, 64, 64, 64)
    tokenizer = published.tokenizers["t1ce"]["patch_embedding"]
    tokenizer.position_embeddings = embedding(64).position_embeddings
    every = published.run(torch.cat(published.tokens(volumes(x, ["t1ce"])), 1))
    torch.testing.assert_close(
        encoder.features(x)[-1], as_map(every[-1], x.shape), rtol=1e-4, atol=1e-4
    )
    assert encoder.features(torch.zeros(1, 1, 32, 48, 64))[0].shape[2:] == (2, 3, 4)


def test_what_bmmae_does_not_use_is_not_trained(tmp_path: Path) -> None:
    _, encoder = bmmae(tmp_path, modalities=["T1", "T2"])
    encoder.requires_grad_(True)
    sum(f.square().sum() for f in encoder.features(torch.randn(1, 2, 32, 32, 32))).backward()
    reached = {id(p) for p in encoder.parameters() if p.grad is not None}
    assert {id(p) for p in encoder.active_parameters()} == reached


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ["T1", "PD"]}, "unknown modality 'PD'"),
        ({"modalities": ["T1", "T1"]}, "Each once"),
        ({"tokens": "late"}, "tokens 'late'; allowed: native, fused"),
        ({"pool": "first"}, "pool 'first'; allowed: cls, mean"),
    ],
)
def test_impossible_bmmaes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_encoder("volume_testbmmae", **options)
