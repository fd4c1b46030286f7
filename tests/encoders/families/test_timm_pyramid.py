"""Networks of timm with maps of several resolutions: what they give, load, train and refuse."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from nnunet_fm.encoders import CheckpointError, Encoder, build_encoder, load_encoder
from nnunet_fm.encoders.families.timm_pyramid import TimmPyramid, timm_architecture
from nnunet_fm.encoders.families.timm_vit import TimmViT
from nnunet_fm.network.activation_memory import kept_for_backward, total_bytes

# Channels and strides, and the parameters that only the classifier uses.
NETWORKS: dict[str, tuple[list[int], list[int], set[str]]] = {
    "convnext_atto": ([40, 80, 160, 320], [4, 8, 16, 32], {"head.norm"}),
    "resnet18": ([64, 64, 128, 256, 512], [2, 4, 8, 16, 32], set()),
    "efficientnet_b0": ([16, 24, 40, 112, 320], [2, 4, 8, 16, 32], {"conv_head", "bn2"}),
    "regnety_002": ([32, 24, 56, 152, 368], [2, 4, 8, 16, 32], set()),
    "swin_tiny_patch4_window7_224": ([24, 48, 96, 192], [4, 8, 16, 32], {"norm"}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "swin_tiny_patch4_window7_224": {
        "depths": (1, 1, 2, 1),
        "embed_dim": 24,
        "num_heads": (1, 2, 2, 4),
        "strict_img_size": False,
    },
}


@pytest.fixture(scope="module", params=NETWORKS)
def built(request: pytest.FixtureRequest) -> tuple[str, TimmPyramid]:
    """A network and its name."""
    torch.manual_seed(0)
    encoder = build_encoder(f"timm/{request.param}", **OPTIONS.get(request.param, {}))
    assert isinstance(encoder, TimmPyramid)
    return request.param, encoder.eval().requires_grad_(False)


def test_the_maps_are_those_of_timms_features_only(built: tuple[str, TimmPyramid]) -> None:
    name, encoder = built
    channels, strides, _ = NETWORKS[name]
    assert [info.channels for info in encoder.feature_info] == channels
    assert [info.stride for info in encoder.feature_info] == strides
    spec = encoder.input_spec
    assert (encoder.kind, spec.spatial_dims, spec.divisor) == ("pyramid", 2, max(strides))
    theirs = timm.create_model(
        name, features_only=True, out_indices=encoder.taps, **OPTIONS.get(name, {})
    )
    theirs.eval()
    # features_only writes stages_0 where the network has stages.0
    state = {k.replace(".", "_"): v for k, v in encoder.network.state_dict().items()}
    theirs.load_state_dict({k: state[k.replace(".", "_")] for k in theirs.state_dict()})
    x = torch.randn(2, 3, 96, 64)
    for ours, expected, info in zip(
        encoder.features(x), theirs(x), encoder.feature_info, strict=True
    ):
        assert ours.shape == (2, info.channels, 96 // info.stride, 64 // info.stride)
        last = expected.movedim(-1, 1) if "swin" in name else expected
        torch.testing.assert_close(ours, last)
    assert encoder.embed(x).shape[0] == 2
    with pytest.raises(ValueError, match=r"\(90, 64\) is not a multiple of .* largest stride 32"):
        encoder.features(x[:, :, :90])


def test_the_active_parameters_are_those_that_get_a_gradient(
    built: tuple[str, TimmPyramid],
) -> None:
    name, encoder = built
    used = {id(p) for p in encoder.active_parameters()}
    unused = {n for n, p in encoder.network.named_parameters() if id(p) not in used}
    assert {n.rpartition(".")[0] for n in unused} == NETWORKS[name][2]
    assert not any(p.requires_grad or p.grad is not None for p in encoder.parameters())


def test_layers_go_from_the_stem_to_what_follows_the_stages(built: tuple[str, TimmPyramid]) -> None:
    name, encoder = built
    groups = encoder.layer_groups()
    names = {id(p): n for n, p in encoder.network.named_parameters()}
    assert sorted(id(p) for group in groups for p in group) == sorted(names)
    assert {names[id(p)].rpartition(".")[0] for p in groups[-1]} == NETWORKS[name][2]
    numbers = [{names[id(p)].split(".")[1] for p in group} for group in groups[1:-1]]
    if name.startswith(("convnext", "swin", "efficientnet")):  # stages.0, layers.0, blocks.0
        assert numbers == [{str(n)} for n in range(len(groups) - 2)]
    order = [list(names.values()).index(names[id(p)]) for group in groups for p in group]
    assert order == sorted(order)


def test_gradient_checkpointing_saves_memory_and_changes_nothing(
    built: tuple[str, TimmPyramid],
) -> None:
    _, encoder = built
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    results = []
    for enabled in (False, True):
        encoder.set_gradient_checkpointing(enabled)
        with kept_for_backward(encoder) as kept:
            last = encoder.features(x)[-1]
        (gradient,) = torch.autograd.grad(last.square().sum(), x)
        results.append((total_bytes(kept), last, gradient / gradient.abs().max()))
    encoder.set_gradient_checkpointing(False)
    (bytes_kept, *plain), (fewer, *recomputed) = results
    assert fewer < bytes_kept / 2
    for before, after in zip(plain, recomputed, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_files_of_timm_load_strictly_without_their_classifier(
    built: tuple[str, TimmPyramid], tmp_path: Path
) -> None:
    name, _ = built
    torch.manual_seed(1)
    published = timm.create_model(name, num_classes=3, **OPTIONS.get(name, {}))
    for parameter in published.parameters():
        nn.init.normal_(parameter, 0.02, 0.05)
    torch.save({"state_dict": published.state_dict()}, tmp_path / "weights.pth")
    options = OPTIONS.get(name, {})
    loaded, report = load_encoder(tmp_path / "weights.pth", f"timm/{name}", **options)
    assert set(report.dropped.values()) == {"classifier"}
    assert report.missing == []
    state = published.state_dict()
    assert len(report.dropped) + report.matched == len(state)
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, state[key.removeprefix("network.")]), key
    torch.save(loaded.state_dict(), tmp_path / "own.pth")
    again, report = load_encoder(tmp_path / "own.pth", f"timm/{name}", taps=(0, 2), **options)
    assert report.dropped == {}
    assert again.taps == (0, 2)


def test_files_of_other_networks_are_refused(tmp_path: Path) -> None:
    state = timm.create_model("convnext_atto").state_dict()
    del state["stem.1.bias"]
    torch.save(state | {"neck.weight": torch.ones(2)}, tmp_path / "weights.pth")
    with pytest.raises(
        CheckpointError,
        match="does not fit timm/convnext_atto. 1 tensors missing: network.stem.1.bias; "
        "1 tensors unexpected: network.neck.weight",
    ):
        load_encoder(tmp_path / "weights.pth", "timm/convnext_atto")
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"or timm/NAME\): --card NAME"):
        load_encoder(tmp_path / "weights.pth")


def test_the_vector_is_the_pooled_last_map_after_the_networks_own_norm() -> None:
    x = torch.randn(2, 3, 64, 96)
    resnet = build_encoder("timm/resnet18").eval()
    torch.testing.assert_close(resnet.embed(x), resnet.features(x)[-1].mean((2, 3)))
    swin = build_encoder("timm/swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1)).eval()
    normed = swin.network.norm(swin.features(x)[-1].movedim(1, -1))
    torch.testing.assert_close(swin.embed(x), normed.mean((1, 2)))


def test_a_swin_transformer_of_any_size_is_timms_at_timms_size() -> None:
    torch.manual_seed(0)
    name, depths = "swin_tiny_patch4_window7_224", (1, 1, 2, 1)
    encoder = build_encoder(f"timm/{name}", depths=depths).eval()
    fixed = timm.create_model(name, depths=depths, num_classes=0).eval()
    fixed.load_state_dict(encoder.network.state_dict())
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = fixed.forward_intermediates(x, intermediates_only=True)
        for ours, theirs in zip(encoder.features(x), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_taps_stop_the_network_early() -> None:
    encoder = build_encoder("timm/convnext_atto", taps=(0, 2)).eval()
    assert [info.stride for info in encoder.feature_info] == [4, 16]
    used = {id(p) for p in encoder.active_parameters()}
    unused = {n.split(".")[1] for n, p in encoder.network.named_parameters() if id(p) not in used}
    assert unused == {"3", "norm"}
    with pytest.raises(ValueError, match=r"taps \[2, 4\]: allowed are increasing .* from 0 to 3"):
        build_encoder("timm/convnext_atto", taps=(2, 4))


def test_a_plain_vit_stays_what_it_was() -> None:
    for name in ("vit_tiny_patch16_224", "deit_tiny_patch16_224", "eva02_tiny_patch14_224"):
        architecture = timm_architecture(name)
        assert (architecture.build.func, architecture.key_format) == (TimmViT, None)
    encoder: Encoder = build_encoder("timm/vit_tiny_patch16_224", taps=(3,))
    assert encoder.kind == "tokens"
    assert "vit.patch_embed.proj.weight" in encoder.state_dict()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", r"unknown timm model 'resnet81'. Did you mean resnet18"),
        ("hf-hub:timm/resnet18", "unknown timm model"),
        ("densenet121", "is a DenseNet, which gives no intermediate maps; allowed: plain ViTs"),
        ("xcit_nano_12_p16_224", "gives maps of stride 16; allowed"),
        ("hiera_tiny_224", r"does not take an image of 64x96 pixels \(.*\); allowed"),
        ("volo_d1_224", "does not take an image of 32x48 pixels"),
    ],
)
def test_networks_that_cannot_be_used_are_refused_in_one_sentence(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        build_encoder(f"timm/{name}")
    assert "\n" not in str(refused.value)


def test_options_of_timms_constructor_are_taken_and_others_named() -> None:
    options = {"in_chans": 1, "depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
    encoder = build_encoder("timm/convnext_atto", **options)
    assert encoder.in_channels == 1
    assert [info.channels for info in encoder.feature_info] == [8, 16, 24, 32]
    with pytest.raises(ValueError, match=r"'depth'\. Did you mean depths.* timm's constructor"):
        build_encoder("timm/convnext_atto", depth=3)


def test_a_network_that_timm_cannot_divide_is_recomputed_as_a_whole() -> None:
    encoder = build_encoder("timm/twins_svt_small", depths=(1, 1, 1, 1)).requires_grad_(False)
    encoder.set_gradient_checkpointing(True)
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    with kept_for_backward(encoder) as kept:
        encoder.features(x)
    assert total_bytes(kept) == x.nbytes


def test_strides_are_measured_where_timms_table_is_wrong() -> None:
    with torch.device("meta"):
        encoder = build_encoder("timm/tresnet_m")
    assert [info["reduction"] for info in encoder.network.feature_info] == [2, 4, 8, 16, 32]
    assert encoder.taps == (1, 2, 3, 4)
    assert [info.stride for info in encoder.feature_info] == [4, 8, 16, 32]
