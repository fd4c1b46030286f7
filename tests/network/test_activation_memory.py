"""The memory that a step keeps is estimated exactly, and a patch that fits is named."""

from typing import Any

import pytest
import torch
from torch import nn

from nnunet_fm.encoders.families.timm_vit import TimmViT
from nnunet_fm.network.activation_memory import (
    fitting_patch,
    kept_bytes,
    kept_for_backward,
    total_bytes,
)
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.network.slice_stack import FrozenEncoder25DNetwork


def really_kept(network: nn.Module, channels: int, patch: tuple[int, ...], batch: int) -> int:
    kept: dict[int, Any] = {}
    copies = [p for part in network._compute for p in part.parameters()]
    weights = {p.untyped_storage().data_ptr() for p in (*network.parameters(), *copies)}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        network(torch.randn(batch, channels, *patch))
        return sum(s.nbytes() for s in kept.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("encoder", "decoder", "patch"),
    [
        ("dinov3_test16", "primus", (64, 32)),
        ("volume_test16", "unetr", (32, 48, 32)),
        ("volume_testpyramid", "pyramid", (16, 16, 16)),
        ("volume_testuniformer", "pyramid", (32, 32, 32)),
        ("volume_testprimus", "primus3d", (32, 16, 32)),
        ("dinov3_convnext_test", "pyramid", (64, 32)),
        ("timm/resnet18", "pyramid", (64, 32)),
    ],
)
def test_the_estimate_equals_what_a_real_pass_keeps(
    encoder: str, decoder: str, patch: tuple[int, ...], precision: str
) -> None:
    network = FrozenEncoderNetwork(4, 3, encoder, decoder=decoder).train()
    network.use_precision(precision)
    assert kept_bytes(network, 4, patch, 2) == pytest.approx(
        really_kept(network, 4, patch, 2), rel=0.05
    )


def test_parameters_are_not_counted_whatever_view_of_them_is_kept() -> None:
    layer, x = nn.Linear(64, 32), torch.randn(8, 64)
    with kept_for_backward(layer) as kept:
        layer(x.requires_grad_())  # keeps its input and its transposed weight
    assert total_bytes(kept) == x.nbytes


def test_checkpointing_and_a_fixed_fusion_keep_less() -> None:
    network = FrozenEncoderNetwork(4, 3, "dinov3_test16").train()
    whole = kept_bytes(network, 4, (64, 64), 2)
    network.use_kernels(gradient_checkpointing=True)
    checkpointed = kept_bytes(network, 4, (64, 64), 2)
    network.set_fusion_learns(False)
    assert whole > checkpointed > kept_bytes(network, 4, (64, 64), 2)


def test_a_stack_keeps_as_much_as_its_slices() -> None:
    flat = FrozenEncoderNetwork(4, 3, "dinov3_test16").train()
    stacked = FrozenEncoder25DNetwork(4, 3, "dinov3_test16", mix_slices=1).train()
    assert kept_bytes(stacked, 4, (4, 64, 64), 2) == pytest.approx(
        kept_bytes(flat, 4, (64, 64), 8), rel=0.02
    )


class Remembering(TimmViT):
    """An encoder that keeps what it made in a pass, as caches of positions do."""

    def __init__(self, taps: Any = None) -> None:
        super().__init__("vit_tiny_patch16_224", taps, depth=4, embed_dim=24, num_heads=2)
        self.kept: dict[Any, torch.Tensor] = {}

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.kept.setdefault(x.shape, x.new_ones(1))
        return [f * self.kept[x.shape] for f in super().features(x)]


def test_an_estimate_leaves_nothing_in_the_network() -> None:
    network = FrozenEncoderNetwork(2, 3, f"{__name__}.Remembering").train()
    assert kept_bytes(network, 2, (32, 32), 1) > 0
    assert not network.encoder.kept
    loss = network(torch.randn(1, 2, 32, 32)).square().mean()
    loss.backward()
    assert loss.item() > 0


def test_the_nearest_patch_that_fits_is_named() -> None:
    def voxels(patch: tuple[int, ...]) -> int:
        return patch[0] * patch[1] * patch[2]

    assert (
        fitting_patch(voxels, (64, 96, 96), 16, 11 * 64**3 // 6)
        == "nearest patch that fits: 64x64x64"
    )
    assert fitting_patch(voxels, (64, 96, 96), 16, 10) == "no patch fits"

    def too_small(patch: tuple[int, ...]) -> int:
        raise ValueError("Expected more than 1 spatial element")

    assert fitting_patch(too_small, (64, 96, 96), 16, 10) == "no patch fits"
