"""DINOv2 vision transformers (Oquab et al., arXiv:2304.07193), through timm."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.layers import SwiGLUPacked
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fm.encoders.families.dinov2_keys import from_dinov2, from_transformers_dinov2
from nnunet_fm.encoders.families.dinov3 import PRETRAINING_HEADS
from nnunet_fm.encoders.families.timm_vit import TimmViT
from nnunet_fm.encoders.key_format import KeyFormat, takes_slices
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.weight_card import OWN, WeightCard
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

SIZES = {"vits14": "small", "vitb14": "base", "vitl14": "large", "vitg14": "giant"}
REGISTERS = ("", "_reg4")
POSITIONS = ("antialias", "offset")
OFFSET = 0.1  # cells
# Of the released models; ViT-g alone has gated layers (SwiGLU).
RELEASED: dict[str, Any] = {"in_chans": 3, "patch_size": 14, "image_size": 518, "swiglu": False}
WIDTHS = {"small": 384, "base": 768, "large": 1024, "giant": 1536}  # of timm's architectures
# two small networks, for CPUs and for tests
SMALL: dict[str, dict[str, int]] = {
    "nano14": {"embed_dim": 128, "num_heads": 4, "depth": 4, "image_size": 98},
    "test14": {"embed_dim": 32, "num_heads": 2, "depth": 4, "image_size": 56},
}


class Dinov2(TimmViT):
    """DINOv2 ViT, whose learned positions fit other grids as they did where it was trained.

    Args:
        model: timm's architecture name.
        taps: tapped blocks, see `TimmViT`.
        swiglu: whether the layers after the attention are gated (SwiGLU), as in ViT-g, whatever
            timm's architecture has; None leaves that to timm.
        positions: how positions are resized, bicubic in both cases. `offset`: by the factor
            (side + 0.1) / native side, without antialiasing, as the official training code and the
            hub's models without registers do (dinov2/models/vision_transformer.py,
            `interpolate_offset`). `antialias`: to the side, with antialiasing, as the hub's models
            with registers and timm do.
        **arguments: passed to timm's constructor.

    Raises:
        InputError: another kind of positions, or ViT-g without gated layers.
    """

    def __init__(
        self,
        model: str,
        taps: Sequence[int] | None = None,
        positions: str = "antialias",
        swiglu: bool | None = None,
        **arguments: Any,
    ) -> None:
        if positions not in POSITIONS:
            raise InputError(unknown("kind of positions", positions, POSITIONS))
        if swiglu is False and "giant" in model:
            raise InputError("swiglu=false with ViT-g, whose layers are gated; omit it")
        if swiglu:
            arguments |= _gated(arguments.get("embed_dim", WIDTHS[model.split("_")[1]]))
        super().__init__(model, taps, **arguments)
        if positions == "offset":
            self.vit._pos_embed = self._with_positions

    def _with_positions(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b n d"]:
        """Add positions to the patches, and put the CLS and register tokens in front."""
        vit = self.vit
        prefix = [
            token.expand(len(x), -1, -1)
            for token in (vit.cls_token, vit.reg_token)
            if token is not None
        ]
        positions = self._offset_positions(x.shape[1], x.shape[2])
        if vit.no_embed_class:
            return torch.cat([*prefix, x.flatten(1, 2) + positions], 1)
        return torch.cat([*prefix, x.flatten(1, 2)], 1) + positions

    def _offset_positions(self, rows: int, columns: int) -> Float[Tensor, "1 n d"]:
        """Return the positions of a grid, with those of the prefix tokens if they have any."""
        positions: Tensor = self.vit.pos_embed
        native: tuple[int, int] = self.vit.patch_embed.grid_size
        if (rows, columns) == native:
            return positions
        prefix = positions.shape[1] - native[0] * native[1]
        square = positions[:, prefix:].float().transpose(1, 2).unflatten(2, native)
        factors = [(side + OFFSET) / own for side, own in zip((rows, columns), native, strict=True)]
        resized = functional.interpolate(square, scale_factor=factors, mode="bicubic")
        patches = resized.flatten(2).transpose(1, 2).to(positions.dtype)
        return torch.cat([positions[:, :prefix], patches], 1)


def _gated(width: int) -> dict[str, Any]:
    """Return timm's arguments for gated layers, 8/3 as wide as the tokens, rounded up to eights.

    Source: dinov2/layers/swiglu_ffn.py. timm wants both halves of the first layer, as a ratio.
    """
    hidden = (width * 8 // 3 + 7) // 8 * 8
    ratio = (2 * hidden + 0.5) / width  # timm rounds down
    return {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": ratio}


def sizes_in_file(tensors: Mapping[str, Tensor], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in which a file differs from those that an architecture has by itself.

    The training code's own sizes are patches of 16 and images of 224 pixels; grey images may have
    been trained on with one channel.

    Args:
        tensors: in our names.
        usual: the architecture's `in_chans`, `patch_size`, `image_size` (pixels) and `swiglu`.
    """
    kernel, positions = tensors.get("vit.patch_embed.proj.weight"), tensors.get("vit.pos_embed")
    if kernel is None or positions is None or kernel.ndim != 4 or positions.ndim != 3:
        return {}
    patch = kernel.shape[-1]
    cells = positions.shape[1] - (0 if "vit.reg_token" in tensors else 1)
    side = math.isqrt(max(cells, 0)) * patch
    found: dict[str, Any] = {"in_chans": kernel.shape[1], "patch_size": patch, "image_size": side}
    wide, narrow = (tensors.get(f"vit.blocks.0.mlp.fc{n}.weight") for n in (1, 2))
    if wide is not None and narrow is not None:
        found["swiglu"] = wide.shape[0] == 2 * narrow.shape[-1]
    return {name: value for name, value in found.items() if value != usual[name]}


def _is_dinov2(state: Mapping[str, Tensor]) -> bool:
    has_token = "mask_token" in state or "register_tokens" in state
    return "pos_embed" in state and has_token and takes_slices(state)


def _is_transformers(state: Mapping[str, Tensor]) -> bool:
    names = (
        "embeddings.patch_embeddings.projection.weight",
        "encoder.layer.0.layer_scale1.lambda1",
    )
    return all(name in state for name in names)


def _released_card(architecture: str, hub: Mapping[str, Any]) -> WeightCard:
    """Return the card of Meta's release; `hub` has the options of the hub's definition."""
    return WeightCard(
        name=f"{architecture}.lvd142m",
        architecture=architecture,
        licence="Apache-2.0",
        source="https://github.com/facebookresearch/dinov2",
        options=dict(hub),
        pretrained_on=("LVD142M",),
        citation="arXiv:2304.07193",
        ignored=("mask_token",),
        files=(f"{architecture}_pretrain.*", "*/*dinov2.lvd142m*"),
        by_files_alone=True,
    )


def _trained_card(architecture: str) -> WeightCard:
    return WeightCard(
        name=f"{architecture}.trained",
        architecture=architecture,
        licence=OWN,
        source="any checkpoint written by the DINOv2 training code (teacher_checkpoint.pth)",
        options={"positions": "offset"},
        ignored=("mask_token", *PRETRAINING_HEADS),
    )


def _register() -> None:
    for short, size in SIZES.items():
        for registers in REGISTERS:
            name = f"dinov2_{short}{registers}"
            hub = {} if registers else {"positions": "offset"}
            usual = RELEASED | {"swiglu": size == "giant"}
            register_architecture(
                name,
                partial(Dinov2, f"vit_{size}_patch14{registers}_dinov2"),
                PRETRAINING_HEADS,
                options=hub,
                shown=partial(sizes_in_file, usual=usual),
            )
            register_cards(_released_card(name, hub), _trained_card(name))
    for short, sizes in SMALL.items():
        register_architecture(
            f"dinov2_{short}",
            partial(Dinov2, "vit_small_patch14_dinov2", **sizes),  # type: ignore[arg-type]
            PRETRAINING_HEADS,
            options={"positions": "offset"},
            shown=partial(sizes_in_file, usual=RELEASED | {"image_size": sizes["image_size"]}),
        )
        register_cards(_trained_card(f"dinov2_{short}"))
    register_key_format(KeyFormat("DINOv2", _is_dinov2, from_dinov2))
    register_key_format(
        KeyFormat(
            "transformers DINOv2",
            _is_transformers,
            from_transformers_dinov2,
            prefixes=("dinov2.", "dinov2_with_registers."),
        )
    )


_register()
