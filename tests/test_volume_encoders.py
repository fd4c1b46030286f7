"""3-D encoders: the papers' counts, their authors' files, and the same numbers as a straightforward forward."""

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets.unetr import UNETR
from monai.networks.nets.vit import ViT
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fm.encoders import build_encoder, load_encoder
from nnunet_fm.network import FrozenEncoderNetwork

TINY = {"hidden_size": 24, "mlp_dim": 48, "num_heads": 2, "num_layers": 8}


def published(side: int = 48, **arguments: Any) -> ViT:
    """What BrainIAC's authors build, small, with weights of ordinary size."""
    torch.manual_seed(1)
    vit = ViT(1, (side,) * 3, (16,) * 3, **TINY, **arguments).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.normal_(0, 0.2)
    return vit


def lightning(vit: nn.Module) -> dict[str, Any]:
    """The content of their file: below `state_dict`, with a projector beside the backbone."""
    state = {f"backbone.{k}": v for k, v in vit.state_dict().items()}
    return {"epoch": 3, "state_dict": state | {"projector.0.weight": torch.zeros(3, 3)}}


def loaded(vit: ViT, tmp_path: Path, **options: Any) -> Any:
    torch.save(lightning(vit), tmp_path / "BrainIAC.ckpt")
    encoder, report = load_encoder(tmp_path / "BrainIAC.ckpt", "volume_test16", **options)
    assert (report.containers, report.prefixes, report.format) == (["state_dict"], ["backbone."], "MONAI ViT")
    assert not report.missing
    assert set(report.dropped.values()) == {
        "cross attention, not used in a plain ViT",
        "pretraining head",
    }
    return encoder


def plain_forward(vit: ViT, x: Tensor) -> list[Tensor]:
    """The authors' forward on (x, y, z); feature maps in nnU-Net's order."""
    last, hidden = vit(x.permute(0, 1, 4, 3, 2))
    grid = [side // 16 for side in reversed(x.shape[2:])]
    tokens = [*hidden[:-1], last]
    return [t.transpose(1, 2).reshape(len(x), -1, *grid).permute(0, 1, 4, 3, 2) for t in tokens]


def test_brainiac_has_its_papers_parameters_and_shapes() -> None:
    with torch.device("meta"):
        encoder = build_encoder("brainiac_vitb16")
        assert sum(p.numel() for p in encoder.parameters()) == 88_340_736
        features = encoder.features(torch.zeros(1, 1, 128, 128, 128))
    assert [tuple(f.shape) for f in features] == [(1, 768, 8, 8, 8)] * 4
    assert encoder.taps == (3, 6, 9, 11)


def test_features_are_those_of_the_authors_class(tmp_path: Path) -> None:
    vit = published()
    encoder = loaded(vit, tmp_path)
    x = torch.randn(2, 1, 48, 48, 48)
    expected = plain_forward(vit, x)
    for tap, found in zip(encoder.taps, encoder.features(x), strict=True):
        torch.testing.assert_close(found, expected[tap])
    torch.testing.assert_close(encoder.embed(x), vit(x.permute(0, 1, 4, 3, 2))[0].mean(1))
    first = loaded(vit, tmp_path, pool="first").embed(x)
    torch.testing.assert_close(first, vit(x.permute(0, 1, 4, 3, 2))[0][:, 0])


def test_other_sizes_resize_the_positions_trilinearly(tmp_path: Path) -> None:
    vit = published()
    encoder = loaded(vit, tmp_path)
    x = torch.randn(1, 1, 64, 32, 48)  # (z, y, x): a grid of 3 x 2 x 4 for the weights
    native = vit.patch_embedding.position_embeddings
    cube = native.transpose(1, 2).reshape(1, -1, 3, 3, 3)
    resized = functional.interpolate(cube, (3, 2, 4), mode="trilinear", align_corners=False).flatten(2).transpose(1, 2)
    vit.patch_embedding.position_embeddings = nn.Parameter(resized)
    expected = plain_forward(vit, x)
    for tap, found in zip(encoder.taps, encoder.features(x), strict=True):
        assert found.shape == (1, 24, 4, 2, 3)
        torch.testing.assert_close(found, expected[tap])
    with pytest.raises(ValueError, match="not a multiple of the encoder's patch size 16"):
        encoder.features(torch.zeros(1, 1, 48, 40, 48))


def test_gradient_checkpointing_and_fused_attention_change_nothing(tmp_path: Path) -> None:
    encoder, x = loaded(published(), tmp_path), torch.randn(1, 1, 32, 32, 32, requires_grad=True)
    plain = encoder.features(x)[-1]
    (gradient,) = torch.autograd.grad(plain.sum(), x)
    encoder.set_gradient_checkpointing(True)
    encoder.set_fused_attention(True)
    other = encoder.features(x)[-1]
    torch.testing.assert_close(other, plain)
    torch.testing.assert_close(torch.autograd.grad(other.sum(), x)[0], gradient)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s["state_dict"].pop("backbone.blocks.3.mlp.linear1.weight"), "1 tensors missing: vit.blocks.3.mlp"),
        (lambda s: s["state_dict"].update({"backbone.blocks.9.x": torch.zeros(1)}), "1 tensors unexpected"),
        (
            lambda s: s.update(state_dict={"backbone.conv1.weight": torch.zeros(64, 1, 7, 7, 7)}),
            "BrainIAC of 2025, a ResNet50",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(spoil: Any, message: str, tmp_path: Path) -> None:
    content = lightning(published())
    spoil(content)
    torch.save(content, tmp_path / "BrainIAC.ckpt")
    with pytest.raises(ValueError, match=message):
        load_encoder(tmp_path / "BrainIAC.ckpt", "volume_test16")


def test_a_fixed_fusion_is_the_repeated_and_rescaled_stem(tmp_path: Path) -> None:
    """BrainDINO, section 4.3.1: the patch embedding's weights repeated and divided by C, its bias kept."""
    vit = published()
    network = FrozenEncoderNetwork(4, 3, "volume_test16", fusion="fixed", decoder="primus3d").eval()
    network.encoder.load_state_dict(loaded(vit, tmp_path).state_dict())
    x = torch.randn(1, 4, 48, 48, 48)
    stem = vit.patch_embedding.patch_embeddings
    inflated = nn.Conv3d(4, 24, 16, 16)
    inflated.weight.data, inflated.bias.data = stem.weight.repeat(1, 4, 1, 1, 1) / 4, stem.bias.data
    vit.patch_embedding.patch_embeddings = inflated
    torch.testing.assert_close(network.encode(x)[0], plain_forward(vit, x)[2], rtol=1e-3, atol=1e-3)


def test_the_unetr_decoder_is_monais(tmp_path: Path) -> None:
    theirs = UNETR(4, 3, (64, 48, 32), feature_size=16, hidden_size=24, mlp_dim=48, num_heads=2).eval()
    decoder = FrozenEncoderNetwork(4, 3, "volume_test16", decoder="unetr").decoder.eval()
    names = {"image": "encoder1", "skips.0": "encoder2", "skips.1": "encoder3", "skips.2": "encoder4", "head": "out"}
    names |= {f"ups.{n}": f"decoder{n + 2}" for n in range(4)}
    state = {}
    for key in decoder.state_dict():
        mine = next(n for n in names if key.startswith(f"{n}."))
        state[key] = theirs.state_dict()[f"{names[mine]}{key.removeprefix(mine)}"]
    decoder.load_state_dict(state)
    image, maps = torch.randn(1, 4, 64, 48, 32), [torch.randn(1, 24, 4, 3, 2) for _ in range(4)]
    tokens = [m.flatten(2).transpose(1, 2) for m in maps]
    hidden: list[Any] = [None] * 12
    hidden[3], hidden[6], hidden[9] = tokens[:3]
    theirs.vit = Given(tokens[3], hidden)
    torch.testing.assert_close(decoder(maps, image), theirs(image))


class Given(nn.Module):
    """A transformer that has been run already."""

    def __init__(self, *result: Any) -> None:
        super().__init__()
        self.result = result

    def forward(self, x: Tensor) -> Any:
        return self.result


@pytest.mark.parametrize("decoder", ["unetr", "primus3d"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_decoder_and_the_channel_mix_learn_and_the_encoder_does_not(decoder: str, precision: str) -> None:
    network = FrozenEncoderNetwork(4, 3, "volume_test16", decoder=decoder).train()
    network.use_precision(precision)
    logits = network(torch.randn(1, 4, 32, 48, 16))
    assert logits.shape == (1, 3, 32, 48, 16)
    logits.square().mean().backward()
    assert all(p.grad is None for p in network.encoder.parameters())
    assert all(p.grad is not None for p in network.decoder.parameters())
    assert network.fusion.weight.grad.abs().sum() > 0
    assert not network.encoder.training


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        (
            "volume_test16",
            "primus",
            "3-D, with strides .16.; decoder primus does not fit. Allowed for it: unetr, primus3d",
        ),
        ("dinov3_test16", "unetr", "Allowed for it: primus, light"),
    ],
)
def test_decoders_of_another_dimension_are_refused(encoder: str, decoder: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrozenEncoderNetwork(4, 3, encoder, decoder=decoder)
