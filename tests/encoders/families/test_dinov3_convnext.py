"""DINOv3 ConvNeXt: three ways of naming its tensors, against a plain definition."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from helpers.plain_convnext import State, features, random_state
from nnunet_fm.encoders import CARDS, CheckpointError, build_encoder, load_encoder
from nnunet_fm.encoders.loading.identify import is_published
from nnunet_fm.internal.hub_address import HubAddress
from nnunet_fm.network import FrozenEncoderNetwork

NAME = "dinov3_convnext_test"
DEPTHS, WIDTHS = (1, 1, 2, 1), (8, 16, 24, 32)
PARAMETERS = {"tiny": 27_820_128, "small": 49_454_688, "base": 87_566_464, "large": 196_230_336}
HEADS = {"dino_head.mlp.0.weight": torch.ones(2), "ibot_head.last_layer.weight": torch.ones(2)}


def renamed(state: State, rules: list[tuple[str, str]]) -> State:
    names = {key: key for key in state if not key.startswith("norms.")}
    for pattern, replacement in rules:
        names = {key: re.sub(pattern, replacement, name) for key, name in names.items()}
    return {name: state[key] for key, name in names.items()}


def as_timm(state: State) -> State:
    return renamed(
        state,
        [
            (r"^downsample_layers\.0", "stem"),
            (r"^downsample_layers\.(\d)", r"stages.\1.downsample"),
            (r"^stages\.(\d)\.(\d)\.", r"stages.\1.blocks.\2."),
            ("dwconv", "conv_dw"),
            ("pwconv", "mlp.fc"),
            ("^norm", "head.norm"),
        ],
    )


def as_transformers(state: State) -> State:
    return renamed(
        state,
        [
            (r"^stages\.(\d)\.(\d)\.", r"model.stages.\1.layers.\2."),
            (r"^downsample_layers\.(\d)", r"model.stages.\1.downsample_layers"),
            ("dwconv", "depthwise_conv"),
            ("pwconv", "pointwise_conv"),
            (r"\.norm\.", ".layer_norm."),
            (r"^norm\.", "layer_norm."),
        ],
    )


def as_convolutions(state: State) -> State:
    """As timm stores networks with `conv_mlp`."""
    timm = as_timm(state)
    return {k: v[:, :, None, None] if "mlp" in k and v.ndim == 2 else v for k, v in timm.items()}


FORMS: dict[str, Callable[[State], dict]] = {
    "DINOv3 ConvNeXt": lambda state: state,
    "DINOv3 ConvNeXt, of its training": lambda state: {
        "teacher": {f"backbone.{key}": value for key, value in state.items()} | HEADS
    },
    "timm ConvNeXt": lambda state: as_timm(state) | {"head.fc.weight": torch.ones(5, 32)},
    "timm ConvNeXt, with convolutions": as_convolutions,
    "timm ConvNeXt, of this project": lambda state: {
        f"network.{key}": value for key, value in as_timm(state).items()
    },
    "transformers DINOv3 ConvNeXt": as_transformers,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_format_loads_strictly_and_equals_the_plain_definition(
    form: str, tmp_path: Path
) -> None:
    state = random_state(DEPTHS, WIDTHS)
    torch.save(FORMS[form](state), tmp_path / "weights.pth")
    encoder, report = load_encoder(tmp_path / "weights.pth")
    assert (report.card, report.missing) == (f"{NAME}.trained", [])
    assert report.format == form.split(",")[0]
    assert report.matched == len(encoder.state_dict())
    x = torch.randn(2, 3, 96, 64)
    maps, cls = features(state, x)
    for ours, plain, info in zip(encoder.features(x), maps, encoder.feature_info, strict=True):
        assert ours.shape[1:] == (info.channels, 96 // info.stride, 64 // info.stride)
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(encoder.embed(x), cls, rtol=1e-4, atol=1e-4)


def test_what_is_not_the_encoders_is_dropped_with_a_reason(tmp_path: Path) -> None:
    state = random_state(DEPTHS, WIDTHS)
    for form, reasons in {
        "DINOv3 ConvNeXt": dict.fromkeys(
            ("norms.3.weight", "norms.3.bias"), "second copy of the final norm, checked to be equal"
        ),
        "timm ConvNeXt": {"head.fc.weight": "classifier"},
        "DINOv3 ConvNeXt, of its training": dict.fromkeys(
            ("norms.3.weight", "norms.3.bias"), "second copy of the final norm, checked to be equal"
        )
        | dict.fromkeys(HEADS, "pretraining head"),
    }.items():
        torch.save(FORMS[form](state), tmp_path / "weights.pth")
        assert load_encoder(tmp_path / "weights.pth")[1].dropped == reasons


def test_a_second_norm_that_differs_is_refused(tmp_path: Path) -> None:
    state = random_state(DEPTHS, WIDTHS)
    state["norms.3.bias"][0] += 1e-3
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"^weights.pth: norms.3.bias differs from norm.bias"):
        load_encoder(tmp_path / "weights.pth")


def test_transformers_own_network_gives_the_same_maps() -> None:
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "DINOv3ConvNextModel"):
        pytest.skip("this version of transformers has no DINOv3 ConvNeXt")
    config = transformers.DINOv3ConvNextConfig(hidden_sizes=list(WIDTHS), depths=list(DEPTHS))
    theirs = transformers.DINOv3ConvNextModel(config).eval()
    state = random_state(DEPTHS, WIDTHS)
    theirs.load_state_dict(as_transformers(state))
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        found = theirs(x, output_hidden_states=True)
    maps, cls = features(state, x)
    torch.testing.assert_close(found.pooler_output, cls, rtol=1e-4, atol=1e-4)
    tokens = found.last_hidden_state[:, 1:].transpose(1, 2).unflatten(2, (2, 3))
    torch.testing.assert_close(tokens, maps[-1], rtol=1e-4, atol=1e-4)
    for their, plain in zip(found.hidden_states[-4:-1], maps[:-1], strict=True):
        torch.testing.assert_close(their, plain, rtol=1e-4, atol=1e-4)


def test_only_the_last_stage_is_normed(tmp_path: Path) -> None:
    state = random_state(DEPTHS, WIDTHS)
    torch.save(state, tmp_path / "weights.pth")
    x = torch.randn(1, 3, 64, 64)
    maps, _ = features(state, x)
    early, _ = load_encoder(tmp_path / "weights.pth", taps=(1, 2))
    for ours, plain in zip(early.features(x), maps[1:3], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
    assert early.input_spec.divisor == 32  # `embed` needs all stages


@pytest.mark.parametrize("size", PARAMETERS)
def test_published_sizes(size: str) -> None:
    """Parameters of timm's table without the classifier; 27.82 to 196.23 million."""
    with torch.device("meta"):
        encoder = build_encoder(f"dinov3_convnext_{size}")
    assert sum(p.numel() for p in encoder.parameters()) == PARAMETERS[size]
    assert [info.stride for info in encoder.feature_info] == [4, 8, 16, 32]
    norms = [m for m in encoder.modules() if isinstance(m, nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-6}


@pytest.mark.parametrize(
    ("path", "card"),
    [
        ("dinov3_convnext_tiny_pretrain_lvd1689m-21b726bb.pth", "dinov3_convnext_tiny.lvd1689m"),
        ("x/facebook_dinov3-convnext-base-pretrain-lvd1689m/model.safetensors",
         "dinov3_convnext_base.lvd1689m"),
        ("x/convnext_large.dinov3_lvd1689m/model.safetensors", "dinov3_convnext_large.lvd1689m"),
        ("convnext_tiny_22k_224.pth", None),
    ],
)  # fmt: skip
def test_published_files_are_known_by_their_names(path: str, card: str | None) -> None:
    found = [name for name, known in CARDS.items() if is_published(Path(path), known)]
    assert found == ([] if card is None else [card])


def sparse(size: str) -> dict[str, Tensor]:
    """Tensors of a published size, which take no space: all their values are one number."""
    with torch.device("meta"):
        encoder = build_encoder(f"dinov3_convnext_{size}")
    one = torch.ones(1)
    return {
        key.removeprefix("network."): one.expand(v.shape) for key, v in encoder.state_dict().items()
    }


def test_a_file_of_another_size_is_refused_with_the_right_name(tmp_path: Path) -> None:
    torch.save(sparse("small"), tmp_path / "weights.pth")
    with pytest.raises(
        CheckpointError,
        match=r"does not fit dinov3_convnext_tiny.lvd1689m. .*Its tensors are those of "
        r"dinov3_convnext_small\.$",
    ):
        load_encoder(tmp_path / "weights.pth", "dinov3_convnext_tiny.lvd1689m")


def test_a_file_of_unknown_origin_loads_as_its_architecture(tmp_path: Path) -> None:
    """ConvNeXts that were trained on ImageNet have the same tensors, and another licence."""
    torch.save(sparse("tiny") | {"head.fc.bias": torch.ones(1000)}, tmp_path / "weights.pth")
    _, report = load_encoder(tmp_path / "weights.pth")
    assert report.card == "dinov3_convnext_tiny"
    assert "licence and pretraining data are unknown" in report.chosen_because


def test_bfloat16_and_fine_tuning(tmp_path: Path) -> None:
    torch.save(random_state(DEPTHS, WIDTHS), tmp_path / "weights.pth")
    loaded, _ = load_encoder(tmp_path / "weights.pth")
    network = FrozenEncoderNetwork(2, 3, NAME, decoder="pyramid").eval()
    network.encoder.load_state_dict(loaded.state_dict())
    x = torch.randn(1, 2, 64, 64)
    exact = network(x)
    network.use_precision("bfloat16")
    both = torch.stack([network(x).flatten(), exact.flatten()])
    assert 0.99 < torch.corrcoef(both)[0, 1] < 1
    network.use_precision("float32")
    network.unfreeze()
    network(x).square().mean().backward()
    assert all(p.grad is not None for p in network.encoder.parameters())


@pytest.mark.parametrize(("owner", "known"), [("facebook", True), ("somebody", False)])
def test_files_of_the_hub_are_known_in_the_authors_repositories(owner: str, known: bool) -> None:
    card = CARDS["dinov3_convnext_tiny.lvd1689m"]
    address = HubAddress.parse(card.hub.replace("facebook", owner))
    assert is_published(Path("cache/model.safetensors"), card, address) == known
