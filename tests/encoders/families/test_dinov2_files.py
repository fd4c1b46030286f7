"""DINOv2's files of other groups: transformers' names, Curia, MRI-CORE."""

import tempfile
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from helpers.encoder_files import attentive, card_of, without_values
from nnunet_fm.encoders import build_encoder, get_card, load_encoder

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 4,
    "image_size": 56,
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
}


def library_model(kind: Any, config: Any, **sizes: Any) -> nn.Module:
    """A model of transformers with weights of ordinary size."""
    torch.manual_seed(0)
    model = kind(config(**(SMALL | sizes)))
    for name, parameter in model.named_parameters():
        scale = 0.5 if "query" in name or "key" in name else 0.2
        nn.init.normal_(parameter, std=scale)
    return model.eval().requires_grad_(False)


def published(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors in the names of the files that transformers writes."""
    with tempfile.TemporaryDirectory() as folder:
        cast(Any, model).save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors")


@pytest.mark.parametrize(
    ("sizes", "shown"),
    [
        ({}, {}),
        ({"use_swiglu_ffn": True}, {"swiglu": True}),
        (
            {"num_channels": 1, "patch_size": 16, "image_size": 64},
            {"in_chans": 1, "patch_size": 16, "image_size": 64},
        ),
    ],
    ids=["released sizes", "gated", "one channel"],
)
def test_a_file_of_transformers_gives_its_features(
    sizes: dict[str, Any], shown: dict[str, Any], tmp_path: Path
) -> None:
    model = library_model(Dinov2Model, Dinov2Config, **sizes)
    torch.save(published(model), tmp_path / "model.bin")
    encoder, report = load_encoder(tmp_path / "model.bin")
    torch.save(model.state_dict(), tmp_path / "memory.bin")
    assert load_encoder(tmp_path / "memory.bin")[1].sha256 == report.sha256
    assert (report.format, report.architecture) == ("transformers DINOv2", "dinov2_test14")
    assert report.options == {"positions": "offset"} | shown
    side = shown.get("image_size", 56)
    x = torch.randn(2, encoder.in_channels, side, side)
    tokens = model(x).last_hidden_state
    torch.testing.assert_close(encoder.embed(x), tokens[:, 0], rtol=1e-4, atol=1e-4)
    cells = (side // encoder.input_spec.divisor,) * 2
    patches = tokens[:, 1:].transpose(1, 2).unflatten(2, cells)
    torch.testing.assert_close(encoder.features(x)[-1], patches, rtol=1e-4, atol=1e-4)


def test_registers_of_transformers(tmp_path: Path) -> None:
    model = library_model(Dinov2WithRegistersModel, Dinov2WithRegistersConfig)
    state = {f"dinov2_with_registers.{k}": v for k, v in published(model).items()}
    torch.save(state, tmp_path / "model.bin")
    options = {"reg_tokens": 4, "no_embed_class": True}
    encoder, report = load_encoder(tmp_path / "model.bin", "dinov2_test14", **options)
    assert report.prefixes == ["dinov2_with_registers."]
    x = torch.randn(2, 3, 56, 56)
    tokens = model(x).last_hidden_state
    torch.testing.assert_close(encoder.embed(x), tokens[:, 0], rtol=1e-4, atol=1e-4)


def test_a_file_without_the_keys_of_a_block_is_refused(tmp_path: Path) -> None:
    state = published(library_model(Dinov2Model, Dinov2Config))
    del state["encoder.layer.2.attention.attention.key.weight"]
    torch.save(state, tmp_path / "model.bin")
    with pytest.raises(ValueError, match=r"blocks.2: one of attention.attention.query, .* missing"):
        load_encoder(tmp_path / "model.bin")


def in_transformers_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give our tensors of DINOv2 transformers' names (of those that tell the format)."""
    named = {}
    for key, value in state.items():
        name = key.removeprefix("vit.").replace("blocks.", "encoder.layer.")
        name = name.replace("patch_embed.proj.", "embeddings.patch_embeddings.projection.")
        name = name.replace("pos_embed", "embeddings.position_embeddings")
        name = name.replace("cls_token", "embeddings.cls_token")
        for n in "12":
            name = name.replace(f"ls{n}.gamma", f"layer_scale{n}.lambda1")
        if ".attn.qkv." in name:
            stem, _, kind = name.partition(".attn.qkv.")
            rows = value.shape[0] // 3
            for part in ("query", "key", "value"):
                named[f"{stem}.attention.attention.{part}.{kind}"] = value[:rows]
            continue
        named[name.replace(".attn.proj.", ".attention.output.dense.")] = value
    return {f"layer{k}" if k.startswith("norm.") else k: value for k, value in named.items()}


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("folder", "card"),
    [
        ("raidium/curia-2", "curia2_vitb16.hospital"),
        ("models--raidium--curia/snapshots", "curia_vitb16.hospital"),
        ("curia", "dinov2_vitb14.trained"),  # anybody's folder
    ],
)
def test_curia_is_recognised_by_the_name_of_its_repository(
    folder: str, card: str, gated: bool, tmp_path: Path
) -> None:
    sizes = {"in_chans": 1, "patch_size": 16, "image_size": 512, "swiglu": gated}
    state = in_transformers_names(without_values("dinov2_vitb14", **sizes))
    (tmp_path / folder).mkdir(parents=True)
    torch.save(state, tmp_path / folder / "model.bin")
    assert card_of(tmp_path / folder / "model.bin")[0] == card
    torch.save(state, tmp_path / "model.bin")
    assert card_of(tmp_path / "model.bin") == ("dinov2_vitb14.trained", "shapes")


def test_mri_core_has_the_parameters_of_a_plain_vit_b() -> None:
    with torch.device("meta"):
        encoder = build_encoder("mricore_vitb16")
    assert sum(p.numel() for p in encoder.parameters()) == 85_798_656
    assert not any("ls1" in name or "reg" in name for name in encoder.state_dict())


def mricore_file(path: Path, state: dict[str, Tensor]) -> Path:
    """Write a teacher of DINOv2's training code, with heads."""
    content = {f"backbone.{k.removeprefix('vit.')}": v for k, v in state.items()}
    content["backbone.mask_token"] = torch.zeros(1, 768)
    content["dino_head.last_layer.weight_v"] = torch.zeros(2, 2)
    torch.save({"teacher": content}, path)
    return path


def test_mri_core_is_recognised_by_its_file(tmp_path: Path) -> None:
    state = without_values("mricore_vitb16")
    assert card_of(mricore_file(tmp_path / "MRI_CORE_vitb.pth", state))[0] == "mricore_vitb16.mri"
    with pytest.raises(ValueError, match=r"mricore_vitb16.mri and files of others .*\(positions\)"):
        card_of(mricore_file(tmp_path / "vitb.pth", state))


def test_a_plain_vit_of_timm_is_not_mri_core(tmp_path: Path) -> None:
    """Its positions are resized as timm does, whatever the architecture is called."""
    state = {k.removeprefix("vit."): v for k, v in without_values("mricore_vitb16").items()}
    torch.save(state, tmp_path / "vit_base_patch16_224.bin")
    assert card_of(tmp_path / "vit_base_patch16_224.bin")[0] == "mricore_vitb16"
    assert get_card("mricore_vitb16").options == {}
    with pytest.raises(ValueError, match="names of format timm, and mricore_vitb16.mri is"):
        load_encoder(tmp_path / "vit_base_patch16_224.bin", "mricore_vitb16.mri")


def test_vit_g_without_gates_is_refused() -> None:
    with pytest.raises(ValueError, match="swiglu=false with ViT-g, whose layers are gated"):
        build_encoder("dinov2_vitg14", swiglu=False)


def test_mri_core_gives_what_its_definition_gives(tmp_path: Path) -> None:
    """A plain ViT of two blocks: pre-norm, no LayerScale, positions by DINOv2's offset."""
    state = attentive("mricore_vitb16", depth=4, embed_dim=24, num_heads=2)
    torch.save(
        {f"backbone.{k.removeprefix('vit.')}": v for k, v in state.items()}
        | {"backbone.mask_token": torch.zeros(1, 24)},
        tmp_path / "f.pth",
    )
    sizes = {"depth": 4, "embed_dim": 24, "num_heads": 2}
    encoder, _ = load_encoder(tmp_path / "f.pth", "mricore_vitb16.mri", **sizes)
    x = torch.randn(1, 3, 64, 96)
    own = {k.removeprefix("vit."): v for k, v in state.items()}
    patches = functional.conv2d(x, own["patch_embed.proj.weight"], own["patch_embed.proj.bias"], 16)
    square = own["pos_embed"][:, 1:].transpose(1, 2).unflatten(2, (14, 14))
    factors = [(n + 0.1) / 14 for n in patches.shape[2:]]
    places = functional.interpolate(square, scale_factor=factors, mode="bicubic")
    tokens = (patches + places).flatten(2).transpose(1, 2)
    tokens = torch.cat([own["cls_token"] + own["pos_embed"][:, :1], tokens], 1)

    def norm(value: Tensor, name: str) -> Tensor:
        return functional.layer_norm(value, (24,), own[f"{name}.weight"], own[f"{name}.bias"], 1e-6)

    def linear(value: Tensor, name: str) -> Tensor:
        return functional.linear(value, own[f"{name}.weight"], own[f"{name}.bias"])

    for block in (f"blocks.{n}" for n in range(4)):
        qkv = linear(norm(tokens, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = qkv.unflatten(2, (3, 2, 12)).permute(2, 0, 3, 1, 4)
        attended = ((q @ k.transpose(2, 3) / 12**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
        tokens = tokens + linear(attended, f"{block}.attn.proj")
        hidden = functional.gelu(linear(norm(tokens, f"{block}.norm2"), f"{block}.mlp.fc1"))
        tokens = tokens + linear(hidden, f"{block}.mlp.fc2")
    expected = norm(tokens, "norm")[:, 1:].transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(encoder.features(x)[-1], expected, rtol=1e-4, atol=1e-4)
