"""3-D encoders: the papers' counts, the authors' files, and a plain forward pass."""

from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from monai.networks.nets.swin_unetr import SwinTransformer
from monai.networks.nets.unetr import UNETR
from monai.networks.nets.vit import ViT
from monai.networks.nets.vitautoenc import ViTAutoEnc
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fm.encoders import CARDS, build_encoder, load_encoder
from nnunet_fm.network.frozen import FrozenEncoderNetwork

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
    assert (report.containers, report.prefixes, report.format) == (
        ["state_dict"],
        ["backbone."],
        "MONAI ViT",
    )
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
    resized = (
        functional.interpolate(cube, (3, 2, 4), mode="trilinear", align_corners=False)
        .flatten(2)
        .transpose(1, 2)
    )
    vit.patch_embedding.position_embeddings = nn.Parameter(resized)
    expected = plain_forward(vit, x)
    for tap, found in zip(encoder.taps, encoder.features(x), strict=True):
        assert found.shape == (1, 24, 4, 2, 3)
        torch.testing.assert_close(found, expected[tap])
    with pytest.raises(ValueError, match="not a multiple of the encoder's patch size 16"):
        encoder.features(torch.zeros(1, 1, 48, 40, 48))


@pytest.mark.parametrize("name", ["volume_test16", "volume_testswin", "volume_testpyramid"])
def test_gradient_checkpointing_and_fused_attention_change_nothing(name: str) -> None:
    encoder, x = build_encoder(name).eval(), torch.randn(1, 1, 32, 32, 32, requires_grad=True)
    encoder.requires_grad_(False)
    plain = encoder.features(x)[-1]
    (gradient,) = torch.autograd.grad(plain.square().sum(), x)
    encoder.set_gradient_checkpointing(True)
    if hasattr(encoder, "set_fused_attention"):
        encoder.set_fused_attention(True)
    other = encoder.features(x)[-1]
    torch.testing.assert_close(other, plain)
    torch.testing.assert_close(torch.autograd.grad(other.square().sum(), x)[0], gradient)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda s: s["state_dict"].pop("backbone.blocks.3.mlp.linear1.weight"),
            "1 tensors missing: vit.blocks.3.mlp",
        ),
        (
            lambda s: s["state_dict"].update({"backbone.blocks.9.x": torch.zeros(1)}),
            "1 tensors unexpected",
        ),
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
    """BrainDINO, section 4.3.1: the first weights repeated and divided by C, the bias kept."""
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
    theirs = UNETR(
        4, 3, (64, 48, 32), feature_size=16, hidden_size=24, mlp_dim=48, num_heads=2
    ).eval()
    decoder = FrozenEncoderNetwork(4, 3, "volume_test16", decoder="unetr").decoder.eval()
    names = {
        "image": "encoder1",
        "skips.0": "encoder2",
        "skips.1": "encoder3",
        "skips.2": "encoder4",
        "head": "out",
    }
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


def test_openmind_has_its_parameters_and_the_published_features(tmp_path: Path) -> None:
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


def swin(tmp_path: Path, names: str) -> tuple[SwinTransformer, Path]:
    """A small Swin transformer, in a self-supervised file or a whole SwinUNETR."""
    torch.manual_seed(3)
    published = SwinTransformer(1, 12, (7,) * 3, (2,) * 3, (1,) * 4, (1, 2, 4, 8)).eval()
    state = published.state_dict()
    if names == "self-supervised":
        content = {f"module.{k.replace('.mlp.linear', '.mlp.fc')}": v for k, v in state.items()}
        content |= {
            "module.rotation_head.weight": torch.zeros(4, 2),
            "module.convTrans3d.weight": torch.zeros(1),
        }
    else:
        content = {f"swinViT.{k}": v for k, v in state.items()} | {
            "encoder1.layer.conv1.conv.weight": torch.zeros(1)
        }
    torch.save({"state_dict": content}, tmp_path / "swin.pt")
    return published, tmp_path / "swin.pt"


@pytest.mark.parametrize("names", ["self-supervised", "SwinUNETR"])
def test_swin_is_read_from_both_of_its_formats(names: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        encoder = build_encoder("swin_unetr48")
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(8.06, abs=0.01)
    assert [(f.channels, f.stride) for f in encoder.feature_info] == [
        (48 * 2**n, 2 * 2**n) for n in range(5)
    ]
    published, file = swin(tmp_path, names)
    encoder, report = load_encoder(file, "volume_testswin")
    assert report.format == "MONAI Swin"
    assert set(report.dropped.values()) == {"decoder or head of the pretraining"}
    x = torch.randn(1, 1, 64, 32, 32)
    for found, expected in zip(
        encoder.features(x), published(x.permute(0, 1, 4, 3, 2)), strict=True
    ):
        torch.testing.assert_close(found, expected.permute(0, 1, 4, 3, 2))
    with pytest.raises(ValueError, match="largest stride 32"):
        encoder.features(torch.zeros(1, 1, 48, 32, 32))


def test_old_weights_merge_patches_as_they_learned_it(tmp_path: Path) -> None:
    """The same file, the same shapes, other features: only the card can tell (MONAI issue 8284)."""
    _, file = swin(tmp_path, "SwinUNETR")
    old, _ = load_encoder(file, "volume_testswin", legacy_merging=True)
    new, _ = load_encoder(file, "volume_testswin")
    x = torch.randn(1, 1, 32, 32, 32)
    pairs = list(zip(old.features(x), new.features(x), strict=True))
    torch.testing.assert_close(*pairs[0])  # before the first merging
    assert all((a - b).norm() / b.norm() > 0.1 for a, b in pairs[1:])
    merging = old.swin.layers1[0].downsample
    y = torch.randn(1, 2, 2, 2, 12)
    corners = [
        y[:, i, j, k]
        for i, j, k in (
            (0, 0, 0),
            (1, 0, 0),
            (0, 1, 0),
            (0, 0, 1),
            (1, 0, 1),
            (0, 1, 0),
            (0, 0, 1),
            (1, 1, 1),
        )
    ]
    expected = merging.reduction(merging.norm(torch.cat(corners, -1)))
    torch.testing.assert_close(merging(y)[:, 0, 0, 0], expected)
    assert CARDS["swin_unetr48.ct5050"].options == {"legacy_merging": True}


def test_volta_is_the_vit_of_an_autoencoder(tmp_path: Path) -> None:
    torch.manual_seed(4)
    published = ViTAutoEnc(1, (48,) * 3, (16,) * 3, **TINY).eval()
    torch.save(published.state_dict(), tmp_path / "volta.pt")
    encoder, report = load_encoder(tmp_path / "volta.pt", "volume_test16")
    assert "decoder of the pretraining (ViTAutoEnc)" in report.dropped.values()
    assert CARDS["volta3d_vitb16.t1"].architecture == "brainiac_vitb16"
    x = torch.randn(1, 1, 48, 48, 48)
    hidden = published(x.permute(0, 1, 4, 3, 2))[1]
    expected = hidden[2].transpose(1, 2).reshape(1, -1, 3, 3, 3).permute(0, 1, 4, 3, 2)
    torch.testing.assert_close(encoder.features(x)[0], expected)


class Amaes(nn.Module):
    """The published U-Net's encoder, as its names say it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = [1, *(width * 2**n for n in range(5))]
        for n, name in enumerate(["in_conv", *(f"encoder_conv{s}" for s in range(1, 5))]):
            self.add_module(name, nn.Module())
            for c, inside in ((1, channels[n]), (2, channels[n + 1])):
                block = nn.Module()
                block.conv = nn.Conv3d(inside, channels[n + 1], 3, padding=1)
                block.norm = nn.InstanceNorm3d(channels[n + 1], affine=True)
                getattr(self, name).add_module(f"conv{c}", block)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for name, stage in self.named_children():
            x = x if name == "in_conv" else functional.max_pool3d(x, 2)
            for block in stage.children():
                x = functional.leaky_relu(block.norm(block.conv(x)), 0.01)
            maps.append(x)
        return maps


@pytest.mark.parametrize(
    ("name", "width", "count"), [("amaes_unetb", 32, 14_134_944), ("amaes_unetxl", 64, 56_526_144)]
)
def test_amaes_is_read_from_its_own_names(
    name: str, width: int, count: int, tmp_path: Path
) -> None:
    published = Amaes(width).eval()
    state = {f"model.encoder.{k}": v for k, v in published.state_dict().items()}
    torch.save(
        state | {"model.decoder.decoder_conv1.conv1.conv.weight": torch.zeros(2)},
        tmp_path / "weights.pth",
    )
    encoder, report = load_encoder(tmp_path / "weights.pth")
    assert (report.card, report.format) == (f"{name}.brains45k", "AMAES")
    assert report.parameters == count
    x = torch.randn(1, 1, 32, 16, 48)
    for found, expected in zip(
        encoder.features(x), published(x.permute(0, 1, 4, 3, 2)), strict=True
    ):
        torch.testing.assert_close(found, expected.permute(0, 1, 4, 3, 2), rtol=1e-4, atol=1e-5)


def test_a_pyramid_that_begins_coarse_gets_a_stem() -> None:
    network = FrozenEncoderNetwork(2, 3, "volume_testpyramid", taps=[1, 2], decoder="pyramid")
    logits = network(torch.randn(1, 2, 16, 12, 8))
    assert logits.shape == (1, 3, 16, 12, 8)
    logits.square().mean().backward()
    assert network.decoder.stem.convs[0].conv.weight.grad.abs().sum() > 0
    used = sum(p.numel() for p in network.encoder.active_parameters())
    assert used == sum(p.numel() for p in network.encoder.parameters())
    first = build_encoder("volume_testpyramid", [0])
    assert sum(p.numel() for p in first.active_parameters()) < used


@pytest.mark.parametrize("decoder", ["unetr", "primus3d", "pyramid"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_decoder_and_the_channel_mix_learn_and_the_encoder_does_not(
    decoder: str, precision: str
) -> None:
    encoder = "volume_testpyramid" if decoder == "pyramid" else "volume_test16"
    network = FrozenEncoderNetwork(4, 3, encoder, decoder=decoder).train()
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
        ("volume_testpyramid", "unetr", "Allowed for it: pyramid"),
    ],
)
def test_decoders_of_another_dimension_are_refused(
    encoder: str, decoder: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        FrozenEncoderNetwork(4, 3, encoder, decoder=decoder)
