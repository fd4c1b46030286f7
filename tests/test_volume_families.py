"""BM-MAE, BrainMVP, Primus and BrainSegFounder: their authors' files and the numbers of a plain forward."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.primus import Primus
from monai.networks.blocks.patchembedding import PatchEmbeddingBlock
from monai.networks.blocks.transformerblock import TransformerBlock
from monai.networks.nets.swin_unetr import SwinTransformer
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fm.encoders import CARDS, build_encoder, load_encoder
from nnunet_fm.encoders.cards import intensity_of
from nnunet_fm.encoders.volume_bmmae import TOKENIZERS
from nnunet_fm.network import FrozenEncoderNetwork
from nnunet_fm.optimisation import Recipe, parameter_groups

WIDTH, HEADS, DEPTH = 24, 2, 8
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # MONAI's own class


def shuffled(module: nn.Module, seed: int) -> nn.Module:
    """Weights of ordinary size, so that nothing is hidden by zeros; statistics of BatchNorm too."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not name.endswith("position_embeddings"):
                parameter.normal_(0, 0.2)
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 1.5)
    return module.eval()


# ---- BM-MAE ----


class PlainBmmae(nn.Module):
    """As its authors describe it: a tokenizer a sequence, one transformer over the tokens of all."""

    def __init__(self, side: int = 48) -> None:
        super().__init__()
        names = TOKENIZERS.values()
        self.tokenizers = nn.ModuleDict({n: nn.ModuleDict({"patch_embedding": embedding(side)}) for n in names})
        self.blocks = nn.ModuleList(TransformerBlock(WIDTH, 48, HEADS, qkv_bias=True) for _ in range(DEPTH))
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
    return PatchEmbeddingBlock(1, (side,) * 3, (16,) * 3, WIDTH, HEADS, "conv", pos_embed_type="sincos")


def bmmae(tmp_path: Path, **options: Any) -> tuple[PlainBmmae, Any]:
    published = shuffled(PlainBmmae(), 0)
    state = {**published.state_dict(), "decoder.mask_token": torch.zeros(1), "decoder.blocks.0.x": torch.zeros(2)}
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
    torch.testing.assert_close(bmmae(tmp_path, modalities=order, pool="mean")[1].embed(x), every[-1].mean(1))
    tokens = [published.cls_token.expand(2, -1, -1), *published.tokens(volumes(x, ["flair", "t1", "t2"]))]
    torch.testing.assert_close(encoder.embed(x), published.run(torch.cat(tokens, 1))[-1][:, 0], rtol=1e-4, atol=1e-4)


def test_fused_bmmae_is_the_mean_of_the_tokens_and_of_the_kernels(tmp_path: Path) -> None:
    published, encoder = bmmae(tmp_path, tokens="fused")
    names = list(TOKENIZERS.values())
    x = torch.randn(1, 4, 48, 48, 48)
    kernels = torch.cat([published.tokenizers[n]["patch_embedding"].patch_embeddings.weight for n in names], 1) / 4
    biases = [published.tokenizers[n]["patch_embedding"].patch_embeddings.bias for n in names]
    patches = functional.conv3d(x.permute(0, 1, 4, 3, 2), kernels, torch.stack(biases).mean(0), stride=16)
    positions = published.tokenizers["t1"]["patch_embedding"].position_embeddings
    every = published.run(patches.flatten(2).transpose(1, 2) + positions)
    for tap, found in zip(encoder.taps, encoder.features(x), strict=True):
        torch.testing.assert_close(found, as_map(every[tap], x.shape), rtol=1e-3, atol=1e-3)


def test_bmmae_makes_its_positions_anew_for_other_sizes(tmp_path: Path) -> None:
    published, encoder = bmmae(tmp_path, modalities=["T1c"])
    x = torch.randn(1, 1, 64, 64, 64)
    tokenizer = published.tokenizers["t1ce"]["patch_embedding"]
    tokenizer.position_embeddings = embedding(64).position_embeddings
    every = published.run(torch.cat(published.tokens(volumes(x, ["t1ce"])), 1))
    torch.testing.assert_close(encoder.features(x)[-1], as_map(every[-1], x.shape), rtol=1e-4, atol=1e-4)
    assert encoder.features(torch.zeros(1, 1, 32, 48, 64))[0].shape[2:] == (2, 3, 4)


def test_what_bmmae_does_not_use_is_not_trained(tmp_path: Path) -> None:
    _, encoder = bmmae(tmp_path, modalities=["T1", "T2"])
    encoder.requires_grad_(True)
    sum(f.square().sum() for f in encoder.features(torch.randn(1, 2, 32, 32, 32))).backward()
    reached = {id(p) for p in encoder.parameters() if p.grad is not None}
    assert {id(p) for p in encoder.parameters_in_use()} == reached


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


# ---- BrainMVP ----


class PlainUniFormer:
    """The authors' forward, by the names in their file; (x, y, z) in, their own order of axes inside."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def __call__(self, x: Tensor) -> list[Tensor]:
        x, maps = x.permute(0, 1, 4, 2, 3), []
        for stage in (1, 2, 3, 4):
            x = self.conv(f"patch_embed{stage}.proj", x, stride=2)
            x = self.layer_norm(f"patch_embed{stage}.norm", x.movedim(1, -1), 1e-5).movedim(-1, 1)
            count = len({m[1] for k in self.state if (m := re.match(rf"blocks{stage}\.(\d+)\.", k))})
            for n in range(count):
                x = (self.local if stage <= 2 else self.attending)(f"blocks{stage}.{n}", x)
            maps.append(self.batch_norm("norm", x) if stage == 4 else x)
        return maps

    def conv(self, name: str, x: Tensor, **how: Any) -> Tensor:
        return functional.conv3d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **how)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def layer_norm(self, name: str, x: Tensor, eps: float = 1e-6) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps)

    def batch_norm(self, name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            self.state[f"{name}.{k}"][:, None, None, None] for k in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def local(self, name: str, x: Tensor) -> Tensor:
        x = x + self.conv(f"{name}.pos_embed", x, padding=1, groups=x.shape[1])
        y = self.conv(f"{name}.conv1", self.batch_norm(f"{name}.norm1", x))
        x = x + self.conv(f"{name}.conv2", self.conv(f"{name}.attn", y, padding=2, groups=x.shape[1]))
        y = functional.gelu(self.conv(f"{name}.mlp.fc1", self.batch_norm(f"{name}.norm2", x)))
        return x + self.conv(f"{name}.mlp.fc2", y)

    def attending(self, name: str, x: Tensor) -> Tensor:
        x = x + self.conv(f"{name}.pos_embed", x, padding=1, groups=x.shape[1])
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.linear(f"{name}.attn.qkv", self.layer_norm(f"{name}.norm1", tokens)).chunk(3, -1)
        weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)  # one head at these widths
        tokens = tokens + self.linear(f"{name}.attn.proj", weights @ v)
        y = functional.gelu(self.linear(f"{name}.mlp.fc1", self.layer_norm(f"{name}.norm2", tokens)))
        return (tokens + self.linear(f"{name}.mlp.fc2", y)).transpose(1, 2).reshape(x.shape)


def brainmvp(tmp_path: Path) -> tuple[PlainUniFormer, Any]:
    published = shuffled(build_encoder("volume_testuniformer").uniformer, 5).state_dict()
    content = {f"module.encoder.uniformer.{k}": v for k, v in published.items()}
    content |= {"module.decoder.out_1.conv.conv.bias": torch.zeros(1), "module.rep_template": torch.zeros(8, 4, 4, 4)}
    torch.save({"current_epoch": 1500, "state_dict": content}, tmp_path / "BrainMVP_uniformer.pt")
    encoder, report = load_encoder(tmp_path / "BrainMVP_uniformer.pt", "volume_testuniformer")
    assert report.prefixes == ["module.", "encoder."]
    assert (report.format, report.missing) == ("BrainMVP", [])
    assert set(report.dropped.values()) == {"decoder or template of the pretraining"}
    return PlainUniFormer(published), encoder


def test_brainmvp_has_its_parameters_and_shapes() -> None:
    with torch.device("meta"):
        encoder = build_encoder("brainmvp_uniformer").eval()
        maps = encoder.features(torch.zeros(1, 1, 128, 128, 128))
    assert sum(p.numel() for p in encoder.parameters()) == 22_038_464
    assert [tuple(m.shape[1:]) for m in maps] == [(64, *[64] * 3), (128, *[32] * 3), (320, *[16] * 3), (512, *[8] * 3)]


def test_brainmvp_gives_the_numbers_of_its_authors_forward(tmp_path: Path) -> None:
    published, encoder = brainmvp(tmp_path)
    x = torch.randn(2, 1, 32, 48, 16)  # (z, y, x)
    expected = published(x.permute(0, 1, 4, 3, 2))  # in (z, x, y)
    for found, theirs in zip(encoder.features(x), expected, strict=True):
        torch.testing.assert_close(found, theirs.transpose(3, 4), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(encoder.embed(x), encoder.features(x)[-1].mean((2, 3, 4)))
    with pytest.raises(ValueError, match="largest stride 16"):
        encoder.features(torch.zeros(1, 1, 32, 40, 32))


def test_frozen_batch_statistics_stay_what_they_were(tmp_path: Path) -> None:
    network = FrozenEncoderNetwork(2, 3, "volume_testuniformer", decoder="pyramid").train()
    before = {k: v.clone() for k, v in network.encoder.state_dict().items()}
    x = torch.randn(2, 2, 32, 32, 32)
    first = network(x)
    first.square().mean().backward()
    assert all(torch.equal(v, before[k]) for k, v in network.encoder.state_dict().items())
    with torch.no_grad():
        one = network.eval()(x[:1])
    torch.testing.assert_close(one, first[:1].detach(), rtol=1e-4, atol=1e-4)  # nothing of the other case in it


# ---- Primus ----


def published_primus() -> Primus:
    """Dynamic-network-architectures' own class, small."""
    return shuffled(Primus(1, WIDTH, (8,) * 3, 2, 4, HEADS, (32,) * 3, init_values=0.1, scale_attn_inner=True), 7)


def primus(tmp_path: Path, below: str = "", **options: Any) -> tuple[Primus, Any]:
    published = published_primus()
    state = {f"{below}{k}": v for k, v in published.state_dict().items()}
    torch.save({"network_weights": state, "nnssl_adaptation_plan": {"key_to_encoder": "eva"}}, tmp_path / "f.pth")
    encoder, report = load_encoder(tmp_path / "f.pth", "volume_testprimus", **options)
    assert (report.format, report.prefixes, report.missing) == ("Primus", [below] if below else [], [])
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
    assert sum(p.numel() for p in encoder.parameters()) == 150_997_536  # 148.95 M with 4 channels at 128^3
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
    tokens = torch.stack([w[0, :, i, h, d] for h in range(4) for i in range(4) for d in range(4)])[None]
    every = blocks_of(published, tokens + published.eva.pos_embed, published.eva.rope.get_embed())
    for tap, found in zip(encoder.taps, encoder.features(x), strict=True):
        for number, (h, i, d) in enumerate((h, i, d) for h in range(4) for i in range(4) for d in range(4)):
            torch.testing.assert_close(found[0, :, i, h, d], every[tap][0, number], rtol=1e-3, atol=1e-3)
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
        expected = blocks_of(published, tokens + positions.flatten(2).transpose(1, 2), other.eva.rope.get_embed())
        last = expected[-1].transpose(1, 2).unflatten(2, (2, 3, 4))
        torch.testing.assert_close(encoder.features(x)[-1], last, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="positions 'crop' with a grid of"):
        cropped.features(torch.zeros(1, 1, 40, 32, 32))
    with pytest.raises(ValueError, match="token_order 'dhw'; allowed: hwd, whd"):
        build_encoder("volume_testprimus", token_order="dhw")


def test_simmim_is_told_by_the_folder_that_its_file_lies_in(tmp_path: Path) -> None:
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
    with pytest.raises(ValueError, match=r"primusm.simmim and files of others share, .* numerics \(token_order\)"):
        load_encoder(tmp_path / "downloads" / "checkpoint_final.pth")


# ---- BrainSegFounder ----


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
    content = {f"module.swinViT.{k.replace('.mlp.linear', '.mlp.fc')}": v for k, v in published.state_dict().items()}
    content |= {"module.rotation_head.weight": torch.zeros(4, 2), "module.contrastive_head.bias": torch.zeros(3)}
    torch.save({"state_dict": content | {"module.conv.conv.weight": torch.zeros(1)}}, tmp_path / file)
    encoder, report = load_encoder(tmp_path / file)
    assert (report.card, encoder.in_channels) == (card, channels)
    assert encoder.input_spec.modalities == tuple(CARDS[card].options["modalities"])
    assert report.options["legacy_merging"] is True
    (tmp_path / file).rename(tmp_path / "mine_brats_swin.pt")  # of anybody: any order of channels, any MONAI
    with pytest.raises(ValueError, match=r"files of others share, .* numerics \(legacy_merging, modalities\)"):
        load_encoder(tmp_path / "mine_brats_swin.pt")
    mine, _ = load_encoder(tmp_path / "mine_brats_swin.pt", "swin_unetr48", modalities=["T1"] * channels)
    assert mine.in_channels == channels


# ---- names of files ----


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
def test_published_names_find_their_card(architecture: str, file: str, card: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = build_encoder(architecture).state_dict()
    torch.save({k: torch.zeros(()).expand(v.shape) for k, v in shapes.items()}, tmp_path / file)
    assert load_encoder(tmp_path / file)[1].card == card


def test_a_file_of_unknown_names_is_told_what_it_resembles(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = build_encoder("brainmvp_uniformer").state_dict().values()
    torch.save({f"w{n}": torch.zeros(()).expand(v.shape) for n, v in enumerate(shapes)}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"Nearest by shapes: brainmvp_uniformer.mri16k, with (\d+) of its \1 tensors"):
        load_encoder(tmp_path / "odd.pt")


def test_intensities_are_the_cards_where_the_architecture_has_others() -> None:
    with torch.device("meta"):
        vit, swin = build_encoder("brainiac_vitb16"), build_encoder("swin_unetr48")
    assert intensity_of(vit, "brainiac_vitb16.v2") == "z-score"
    assert intensity_of(vit, "volta3d_vitb16.t1") == "0 to 1"
    assert "CT" in intensity_of(swin, "swin_unetr48.ct5050")
    assert intensity_of(swin, "mine") == "z-score"


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("volume_testuniformer", [0, 1]),
        ("volume_testuniformer", None),
        ("volume_testswin", [0, 2]),
        ("volume_testprimus", [0, 2]),
        ("volume_testprimus", None),
        ("volume_testbmmae", [1, 2]),
    ],
)
def test_what_does_not_reach_the_features_is_not_trained(name: str, taps: list[int] | None) -> None:
    """DDP waits for the gradient of every parameter that it is told of."""
    encoder = build_encoder(name, taps)
    encoder.requires_grad_(True)
    sum(f.square().sum() for f in encoder.features(torch.randn(1, encoder.in_channels, 32, 32, 32))).backward()
    reached = {id(p) for p in encoder.parameters() if p.grad is not None}
    assert {id(p) for p in encoder.parameters_in_use()} == reached


def test_batch_statistics_stay_while_fine_tuning_and_blocks_have_their_rates() -> None:
    network = FrozenEncoderNetwork(1, 2, "volume_testuniformer", decoder="pyramid")
    network.unfreeze()
    norms = [m for m in network.train().encoder.modules() if isinstance(m, nn.BatchNorm3d)]
    assert norms
    assert not any(m.training for m in norms)
    assert network.encoder.training
    layerwise = Recipe(encoder_learning_rate=1e-3, layer_decay=0.5)
    with pytest.raises(ValueError, match=r"layer_decay 0.5 is for transformers"):
        parameter_groups(network, layerwise)
    primus = FrozenEncoderNetwork(1, 2, "volume_testprimus", decoder="primus3d")
    primus.unfreeze()
    rates = {round(g["lr"] / 1e-3, 6) for g in parameter_groups(primus, layerwise)[2:]}
    assert rates == {0.5**n for n in range(6)}  # norm, four blocks, embeddings
