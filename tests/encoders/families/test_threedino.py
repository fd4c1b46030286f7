"""3DINO and Med3DINO: the published counts, files and features."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from helpers.encoder_files import attentive, card_of, without_values
from nnunet_fm.encoders import build_encoder, load_encoder

State = dict[str, Tensor]
WIDTH, NATIVE = 24, 3  # of the test architecture: width, patches along a side


def chunked(state: State) -> State:
    """Number blocks by chunk and block, as the authors' files do."""
    renamed = {}
    for key, value in state.items():
        first, _, rest = key.partition(".")
        number = rest.split(".")[0]
        renamed[f"blocks.{int(number) // 2}.{rest}" if first == "blocks" else key] = value
    return renamed


def positions(state: State, grid: tuple[int, int, int]) -> Tensor:
    """Resized by (n + 0.1) / native (dinov2/models/vision_transformer.py:341)."""
    if grid == (NATIVE,) * 3:
        return state["pos_embed"]
    cube = state["pos_embed"][:, 1:].reshape(1, NATIVE, NATIVE, NATIVE, WIDTH)
    factors = [(n + 0.1) / NATIVE for n in grid]
    resized = functional.interpolate(
        cube.permute(0, 4, 1, 2, 3), scale_factor=factors, mode="trilinear"
    )
    flat = resized.permute(0, 2, 3, 4, 1).reshape(1, -1, WIDTH)
    return torch.cat([state["pos_embed"][:, :1], flat], 1)


def plain(state: State, volume: Tensor, heads: int = 2) -> Tensor:
    """All tokens of the last block after the final norm, from the definition of DINOv2's ViT."""
    patches = functional.conv3d(
        volume, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=8
    )
    grid = tuple(patches.shape[2:])
    x = torch.cat([state["cls_token"], patches.flatten(2).transpose(1, 2)], 1)
    x = x + positions(state, grid)

    def norm(value: Tensor, name: str) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return functional.layer_norm(value, (WIDTH,), weight, bias, 1e-6)

    def linear(value: Tensor, name: str) -> Tensor:
        return functional.linear(value, state[f"{name}.weight"], state[f"{name}.bias"])

    for i in range(4):
        block = f"blocks.{i}"
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = qkv.reshape(1, -1, 3, heads, WIDTH // heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / (WIDTH // heads) ** 0.5).softmax(-1)
        attended = (weights @ v).transpose(1, 2).reshape(x.shape)
        x = x + linear(attended, f"{block}.attn.proj") * state[f"{block}.ls1.gamma"]
        hidden = functional.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + linear(hidden, f"{block}.mlp.fc2") * state[f"{block}.ls2.gamma"]
    return norm(x, "norm")


def published(tmp_path: Path) -> tuple[State, Path]:
    state = attentive("3dino_test8")
    content = {f"backbone.{k}": v for k, v in chunked(state).items()}
    content["dino_head.mlp.0.weight"] = torch.ones(2)
    torch.save({"teacher": content, "epoch": 3}, tmp_path / "f.pth")
    return state, tmp_path / "f.pth"


def test_3dino_has_its_parameters_and_taps() -> None:
    with torch.device("meta"):
        encoder = build_encoder("3dino_vitl16")
    assert sum(p.numel() for p in encoder.parameters()) == 306_910_208  # about 307 M
    assert encoder.get_parameter("pos_embed").shape == (1, 344, 1024)
    assert encoder.taps == (5, 11, 17, 23)
    with torch.device("meta"):
        cubes_of_96 = build_encoder("3dino_vitl16", image_size=96)
    assert sum(p.numel() for p in cubes_of_96.parameters()) == 306_780_160  # Med3DINO: 306.78 M


@pytest.mark.parametrize("sides", [(24, 24, 24), (16, 32, 40)])
def test_a_file_of_3dino_gives_what_its_definition_gives(
    sides: tuple[int, int, int], tmp_path: Path
) -> None:
    state, file = published(tmp_path)
    encoder, report = load_encoder(file, "3dino_test8")
    assert (report.format, report.missing) == ("3DINO", [])
    assert list(report.dropped.values()) == ["pretraining head"]
    x = torch.randn(1, 1, *sides)  # (z, y, x), as nnU-Net has them
    tokens = plain(state, x.permute(0, 1, 4, 3, 2))
    grid = tuple(side // 8 for side in reversed(sides))
    expected = tokens[:, 1:].transpose(1, 2).unflatten(2, grid).permute(0, 1, 4, 3, 2)
    torch.testing.assert_close(encoder.features(x)[-1], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(encoder.embed(x), tokens[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("file", "image", "card"),
    [
        ("3dino_vit_weights.pth", 112, "3dino_vitl16.mrict"),
        ("c96_iso_teacher_checkpoint.pth", 96, "med3dino_vitl16.iso"),
        ("c96_sa_teacher_checkpoint.pth", 96, "med3dino_vitl16.sa"),
    ],
)
def test_files_are_recognised_by_their_names(
    file: str, image: int, card: str, tmp_path: Path
) -> None:
    state = chunked(without_values("3dino_vitl16", image_size=image))
    torch.save({"teacher": {f"backbone.{k}": v for k, v in state.items()}}, tmp_path / file)
    assert card_of(tmp_path / file)[0] == card


def test_a_file_of_another_name_has_no_licence_that_is_known(tmp_path: Path) -> None:
    state = without_values("3dino_vitl16", image_size=96)
    torch.save({"teacher": state}, tmp_path / "teacher_checkpoint.pth")
    name, reason = card_of(tmp_path / "teacher_checkpoint.pth")
    assert name == "3dino_vitl16"
    assert "licence and pretraining data are unknown" in reason
    with pytest.raises(ValueError, match=r"pos_embed \[1, 217, 1024\] where \[1, 344, 1024\]"):
        load_encoder(tmp_path / "teacher_checkpoint.pth", "3dino_vitl16.mrict")


def test_the_size_of_the_cubes_is_read_from_the_file(tmp_path: Path) -> None:
    state = attentive("3dino_test8", image_size=32)
    torch.save({"teacher": chunked(state)}, tmp_path / "f.pth")
    encoder, report = load_encoder(tmp_path / "f.pth", "3dino_test8")
    assert report.options == {"image_size": 32}
    assert encoder.input_spec.native_size == (32, 32, 32)
