"""DINOv2 vision transformers (Oquab et al., arXiv:2304.07193), through timm."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from nnunet_fm.encoders.families.dinov3 import PRETRAINING_HEADS
from nnunet_fm.encoders.families.timm_vit import TimmViT
from nnunet_fm.encoders.key_format import Converted, KeyFormat
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
CHANNELS = 3  # this and the next two: of the released models
PATCH, IMAGE = 14, 518  # pixels
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
        positions: how positions are resized, bicubic in both cases. `offset`: by the factor
            (side + 0.1) / native side, without antialiasing, as the official training code and the
            hub's models without registers do (dinov2/models/vision_transformer.py,
            `interpolate_offset`). `antialias`: to the side, with antialiasing, as the hub's models
            with registers and timm do.
        **arguments: passed to timm's constructor.

    Raises:
        InputError: another kind of positions.
    """

    def __init__(
        self,
        model: str,
        taps: Sequence[int] | None = None,
        positions: str = "antialias",
        **arguments: Any,
    ) -> None:
        if positions not in POSITIONS:
            raise InputError(unknown("kind of positions", positions, POSITIONS))
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


def from_dinov2(state: Mapping[str, Tensor]) -> Converted:
    """Convert official DINOv2 names to timm's.

    The register tokens are renamed, and the position of the CLS token is added to the token. The
    training code may number blocks by chunk and block (`blocks.1.6.norm1`).
    """
    tensors = dict(state)
    result = Converted({})
    if "mask_token" in tensors:
        del tensors["mask_token"]
        result.dropped["mask_token"] = "used in pretraining only"
    if "register_tokens" in tensors:
        tensors["reg_token"] = tensors.pop("register_tokens")
        position = tensors["pos_embed"]
        tensors["cls_token"] = tensors["cls_token"] + position[:, :1]
        tensors["pos_embed"] = position[:, 1:]
    for key, value in tensors.items():
        name = re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", key)
        name = name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
        result.tensors[f"vit.{name}"] = value
    return result


def to_dinov2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return official names for timm's, so that `from_dinov2` gives the same tensors again.

    The CLS token of networks with registers gets the position zero. The gated layers of ViT-g keep
    timm's names.
    """
    tensors = {key.removeprefix("vit."): value for key, value in state.items()}
    if "reg_token" in tensors:
        tensors["register_tokens"] = tensors.pop("reg_token")
        positions = tensors["pos_embed"]
        tensors["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], 1)
    return tensors


def sizes_in_file(tensors: Mapping[str, Tensor], image: int) -> dict[str, int]:
    """Return the sizes in which a file differs from the released models.

    The training code's own sizes are patches of 16 and images of 224 pixels; grey images may have
    been trained on with one channel.

    Args:
        tensors: in our names.
        image: side of the images that the architecture's positions are for, in pixels.

    Returns:
        The options `in_chans`, `patch_size` and `image_size`, where they are not the
        architecture's.
    """
    kernel, positions = tensors.get("vit.patch_embed.proj.weight"), tensors.get("vit.pos_embed")
    if kernel is None or positions is None or kernel.ndim != 4 or positions.ndim != 3:
        return {}
    patch = kernel.shape[-1]
    cells = positions.shape[1] - (0 if "vit.reg_token" in tensors else 1)
    side = math.isqrt(max(cells, 0)) * patch
    found = {"in_chans": kernel.shape[1], "patch_size": patch, "image_size": side}
    usual = {"in_chans": CHANNELS, "patch_size": PATCH, "image_size": image}
    return {name: value for name, value in found.items() if value != usual[name]}


def _is_dinov2(state: Mapping[str, Tensor]) -> bool:
    has_token = "mask_token" in state or "register_tokens" in state
    return "pos_embed" in state and has_token


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
            register_architecture(
                name,
                partial(Dinov2, f"vit_{size}_patch14{registers}_dinov2"),
                PRETRAINING_HEADS,
                options=hub,
                shown=partial(sizes_in_file, image=IMAGE),
            )
            register_cards(_released_card(name, hub), _trained_card(name))
    for short, sizes in SMALL.items():
        register_architecture(
            f"dinov2_{short}",
            partial(Dinov2, "vit_small_patch14_dinov2", **sizes),  # type: ignore[arg-type]
            PRETRAINING_HEADS,
            options={"positions": "offset"},
            shown=partial(sizes_in_file, image=sizes["image_size"]),
        )
        register_cards(_trained_card(f"dinov2_{short}"))
    register_key_format(KeyFormat("DINOv2", _is_dinov2, from_dinov2))


_register()
