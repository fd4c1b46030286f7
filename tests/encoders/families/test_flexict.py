"""FlexiCT and Dinov3d-Neuro: the published counts, files and features."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from helpers import plain_dinov3
from helpers.encoder_files import attentive, card_of, flexict, without_values
from nnunet_fm.encoders import build_encoder, get_card, load_encoder
from nnunet_fm.encoders.cards import required_orientation
from nnunet_fm.encoders.families.flexict import enlargement, resized_kernel
from nnunet_fm.network.frozen import _bfloat16_copy

State = dict[str, Tensor]
GRIDS = {2: (32, 48), 3: (16, 24, 32)}
HEADS = {"dino_head.mlp.0.weight": torch.ones(2), "ibot_head.last_layer.weight": torch.ones(2)}


def published(tmp_path: Path, name: str = "f.pth") -> tuple[State, Path]:
    """A small file as FlexiCT's training writes it: both kernels, and heads."""
    state = flexict(attentive("flexict_test8"))
    content = {f"backbone.{k}": v for k, v in state.items()} | HEADS
    torch.save({"teacher": content}, tmp_path / name)
    return state, tmp_path / name


def plain(state: State, x: Tensor, dims: int, taps: tuple[int, ...]) -> list[Tensor]:
    periods = state[f"rope_embed_{dims}D.periods"]
    stem = f"patch_embed_{dims}D"
    return plain_dinov3.features(state, x, taps, 2, 1e-6, periods, torch.bfloat16, stem)


def test_flexict_has_the_published_tensors_and_parameters() -> None:
    with torch.device("meta"):
        encoder = build_encoder("flexict_vit8")
        maps = encoder.features(torch.zeros(1, 1, 32, 48, 64))
        slices = build_encoder("flexict_vit8", dims=2)
    assert sum(p.numel() for p in encoder.parameters()) == 143_999_424
    assert len(encoder.state_dict()) == len(slices.state_dict()) == 219
    assert [tuple(m.shape) for m in maps] == [(1, 864, 4, 6, 8)] * 4
    assert (encoder.taps, encoder.input_spec.orientation) == ((3, 7, 11, 15), "LPS")
    assert encoder.input_spec.spacing == (2.0, 2.0, 2.0)
    assert (slices.input_spec.native_size, slices.input_spec.spatial_dims) == ((512, 512), 2)


def test_the_periods_are_the_authors() -> None:
    """Half a head is 36 angles: 18 periods of slices; 12 of volumes, up to 100^(22/36)."""
    periods = build_encoder("flexict_vit8", depth=4).state_dict()
    assert periods["periods_2d"].shape == (18,)
    torch.testing.assert_close(periods["periods_2d"][-1], torch.tensor(100 ** (34 / 36)))
    torch.testing.assert_close(periods["periods_3d"][-1], torch.tensor(100 ** (22 / 36)))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_file_of_flexict_gives_what_its_definition_gives(dims: int, tmp_path: Path) -> None:
    state, file = published(tmp_path)
    encoder, report = load_encoder(file, "flexict_test8", dims=dims, taps=(1, 3))
    assert (report.format, report.missing) == ("FlexiCT", [])
    assert report.dropped == dict.fromkeys(HEADS, "pretraining head")
    x = torch.randn(2, 1, *GRIDS[dims])
    expected = plain(state, x, dims, (1, 3))
    grid = tuple(side // 8 for side in GRIDS[dims])
    for found, tokens in zip(encoder.features(x), expected, strict=True):
        patches = tokens[:, 5:].transpose(1, 2).unflatten(2, grid)
        torch.testing.assert_close(found, patches, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(encoder.embed(x), expected[-1][:, 0], rtol=1e-4, atol=1e-4)
    for found, tokens in zip(encoder.embed_taps(x), expected, strict=True):
        torch.testing.assert_close(found, tokens[:, 0], rtol=1e-4, atol=1e-4)
    both, _ = load_encoder(file, "flexict_test8", dims=dims, pool="both")
    vector = torch.cat([expected[-1][:, 0], expected[-1][:, 5:].mean(1)], 1)
    torch.testing.assert_close(both.embed(x), vector, rtol=1e-4, atol=1e-4)


def test_periods_are_read_from_the_file(tmp_path: Path) -> None:
    state, file = published(tmp_path)
    x = torch.randn(1, 1, *GRIDS[3])
    before = load_encoder(file, "flexict_test8")[0].features(x)[-1]
    state["rope_embed_3D.periods"] = state["rope_embed_3D.periods"] * 2
    torch.save({"teacher": state}, file)
    after = load_encoder(file, "flexict_test8")[0].features(x)[-1]
    expected = plain(state, x, 3, (3,))[0][:, 5:].transpose(1, 2).unflatten(2, (2, 3, 4))
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)
    assert (after - before).norm() / before.norm() > 0.001


@pytest.mark.parametrize("dims", [2, 3])
def test_patches_of_16_by_the_pseudo_inverse_of_the_whole_enlargement(dims: int) -> None:
    kernel = torch.randn(3, 1, *[4] * dims)
    basis = torch.eye(4**dims).unflatten(1, (1, *[4] * dims))
    how: dict[str, Any] = {"mode": "trilinear"}
    if dims == 2:
        how = {"mode": "bicubic", "antialias": True}
    enlarged = functional.interpolate(basis, [8] * dims, **how).flatten(1)
    expected = kernel.flatten(1) @ torch.linalg.pinv(enlarged).T
    found = resized_kernel(kernel, enlargement(4, 8, dims))
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-3, atol=1e-4)
    assert resized_kernel(kernel, enlargement(4, 4, dims)) is kernel
    patch = torch.randn(1, 1, *[4] * dims)
    larger = functional.interpolate(patch, [8] * dims, **how)
    same = (larger.flatten() * found.flatten(1)).sum(1)
    torch.testing.assert_close(same, (patch.flatten() * kernel.flatten(1)).sum(1))


def test_an_encoder_of_larger_patches(tmp_path: Path) -> None:
    state, file = published(tmp_path)
    encoder, _ = load_encoder(file, "flexict_test8", patch_size=16)
    x = torch.randn(1, 1, 32, 48, 32)
    kernel = state["patch_embed_3D.proj.weight"]
    state["patch_embed_3D.proj.weight"] = resized_kernel(kernel, enlargement(8, 16, 3))
    expected = plain(state, x, 3, (3,))[0][:, 5:].transpose(1, 2).unflatten(2, (2, 3, 2))
    torch.testing.assert_close(encoder.features(x)[-1], expected, rtol=1e-4, atol=1e-4)
    assert encoder.input_spec.divisor == encoder.feature_info[0].stride == 16
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder.features(x)[-1]
        copied = _bfloat16_copy(encoder).features(x)[-1]
    assert torch.equal(copied, rounded)
    assert (rounded.float() - expected).norm() / expected.norm() < 0.05


def test_volumes_are_turned_to_the_orientation_of_the_pretraining(tmp_path: Path) -> None:
    _, file = published(tmp_path)
    encoder, _ = load_encoder(file, "flexict_test8")
    turned, _ = load_encoder(file, "flexict_test8", image_orientation="RAS")
    x = torch.randn(1, 1, 16, 24, 32)  # (z, y, x) of an image stored as LPS
    as_ras = x.flip(3, 4)
    torch.testing.assert_close(turned.features(as_ras)[0].flip(3, 4), encoder.features(x)[0])


@pytest.mark.parametrize(
    ("file", "card"),
    [
        ("ct_2d_teacher.pth", "ct2d"),
        ("ct_3d_teacher.pth", "ct3d"),
        ("3D_final_model.pth", "ct3d"),
        ("ct_3d_vlm.pth", "vlm"),
        ("FlexiCT-3D-VLM/model.pth", "vlm"),
        ("models--ricklisz123--FlexiCT-2D/model.pth", "ct2d"),
    ],
)
def test_flexict_is_recognised_by_the_name_of_its_file(
    file: str, card: str, tmp_path: Path
) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    torch.save({"teacher": flexict(without_values("flexict_vit8"))}, path)
    assert card_of(path)[0] == f"flexict_vit8.{card}"
    assert get_card(f"flexict_vit8.{card}").options["dims"] == (2 if card == "ct2d" else 3)


def test_flexict_under_another_name_is_not_guessed(tmp_path: Path) -> None:
    torch.save({"teacher": flexict(without_values("flexict_vit8"))}, tmp_path / "mine.pth")
    with pytest.raises(
        ValueError, match=r"flexict_vit8.ct2d or .* numerics \(dims, pool\).*--card"
    ):
        card_of(tmp_path / "mine.pth")


def test_the_file_with_a_language_model(tmp_path: Path) -> None:
    state, file = published(tmp_path, "ct_3d_vlm.pth")
    language = {"text_model.layers.0.weight": torch.ones(2), "logit_scale": torch.ones(())}
    torch.save({"model": {f"vision_model.{k}": v for k, v in state.items()} | language}, file)
    encoder, report = load_encoder(file, "flexict_test8", pool="both")
    assert report.prefixes == ["vision_model."]
    assert set(report.dropped) == set(language)
    assert encoder.embed(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 48)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dims": 4}, "dims=4; allowed: 2 or 3"),
        ({"patch_size": 12}, "patch_size=12; allowed: 8 or 16"),
        ({"dims": 2, "image_orientation": "RAS"}, r"for volumes \(dims=3\); omit it"),
        ({"pool": "max"}, "unknown pool 'max'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_encoder("flexict_test8", **options)


def neuro(tmp_path: Path) -> tuple[State, Path]:
    state = flexict(attentive("dinov3dneuro_test16"), volumes_alone=True)
    torch.save({"teacher": {f"backbone.{k}": v for k, v in state.items()}}, tmp_path / "n.pth")
    return state, tmp_path / "n.pth"


def test_dinov3d_neuro_has_its_parameters_and_key_biases(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = build_encoder("dinov3dneuro_vitb16")
    assert sum(p.numel() for p in network.parameters()) == 93_716_568  # 93.7 M
    assert network.get_buffer("periods_3d").shape == (11,)
    state, file = neuro(tmp_path)
    encoder, report = load_encoder(file, "dinov3dneuro_test16")
    assert (report.format, report.dropped, report.missing) == ("FlexiCT", {}, [])
    x, periods = torch.randn(1, 1, 32, 48, 64), state["rope_embed.periods"]
    (expected,) = plain_dinov3.features(state, x, (3,), 2, 1e-6, periods, torch.bfloat16)
    found = encoder.features(x)[-1]
    patches = expected[:, 1:].transpose(1, 2).unflatten(2, (2, 3, 4))
    torch.testing.assert_close(found, patches, rtol=1e-4, atol=1e-4)
    for key in [k for k in state if k.endswith("qkv.bias")]:
        state[key] = state[key].unflatten(0, (3, -1)) * torch.tensor([[1.0], [0.0], [1.0]])
        state[key] = state[key].flatten()
    (without,) = plain_dinov3.features(state, x, (3,), 2, 1e-6, periods, torch.bfloat16)
    assert (without - expected).norm() / expected.norm() > 0.001  # the rotation makes them count


def test_dinov3d_neuro_is_recognised_by_its_repository(tmp_path: Path) -> None:
    path = tmp_path / "Dinov3d-Neuro" / "teacher_checkpoint.pth"
    path.parent.mkdir()
    torch.save({"teacher": flexict(without_values("dinov3dneuro_vitb16"), True)}, path)
    assert card_of(path)[0] == "dinov3dneuro_vitb16.fomo300k"
    assert "not public" in get_card("dinov3dneuro_vitb16.fomo300k").unverified
    path.rename(tmp_path / "mine.pth")
    assert card_of(tmp_path / "mine.pth")[0] == "dinov3dneuro_vitb16"


def test_dinov3d_neuro_is_turned_to_ras(tmp_path: Path) -> None:
    _, file = neuro(tmp_path)
    encoder, _ = load_encoder(file, "dinov3dneuro_test16")
    card = "dinov3dneuro_vitb16.fomo300k"
    assert required_orientation(encoder, card, {}) == "RAS"
    turned, _ = load_encoder(file, "dinov3dneuro_test16", image_orientation="LPS")
    x = torch.randn(1, 1, 16, 32, 48)  # (z, y, x) of an image stored as RAS
    as_lps = x.flip(3, 4)
    torch.testing.assert_close(turned.features(as_lps)[0].flip(3, 4), encoder.features(x)[0])
    with pytest.raises(ValueError, match="patch_size=32; allowed: 16"):
        build_encoder("dinov3dneuro_test16", patch_size=32)


def test_what_is_not_used_is_not_trained() -> None:
    encoder = build_encoder("flexict_test8", dims=2, taps=(0, 1))
    unused = {id(p) for p in encoder.active_parameters()}
    names = {name for name, p in encoder.named_parameters() if id(p) not in unused}
    assert {name.split(".")[0] for name in names} == {"mask_token", "kernels", "blocks"}
    assert {name for name in names if "kernels" in name} == {
        "kernels.3d.weight",
        "kernels.3d.bias",
    }
    assert {name.split(".")[1] for name in names if "blocks" in name} == {"2", "3"}


def test_a_card_of_slices_is_not_one_of_volumes(tmp_path: Path) -> None:
    _, file = published(tmp_path)
    with pytest.raises(ValueError, match="name another card, or omit options that change it"):
        load_encoder(file, "flexict_vit8.ct2d", dims=3, width=24, depth=4, num_heads=2)
