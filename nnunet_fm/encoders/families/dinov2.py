"""DINOv2 vision transformers (Oquab et al., arXiv:2304.07193), through timm."""

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from nnunet_fm.encoders.families.timm_vit import TimmViT
from nnunet_fm.encoders.key_format import Converted, KeyFormat
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.weight_card import WeightCard

SIZES = {"vits14": "small", "vitb14": "base", "vitl14": "large", "vitg14": "giant"}
REGISTERS = ("", "_reg4")


def from_dinov2(state: Mapping[str, Tensor]) -> Converted:
    """Convert official DINOv2 names to timm's.

    The register tokens are renamed, and the position of the CLS token is added to the token.
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
        name = key.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
        result.tensors[f"vit.{name}"] = value
    return result


def _is_dinov2(state: Mapping[str, Tensor]) -> bool:
    has_token = "mask_token" in state or "register_tokens" in state
    return "pos_embed" in state and has_token


def _register() -> None:
    for short, size in SIZES.items():
        for registers in REGISTERS:
            name = f"dinov2_{short}{registers}"
            build = partial(TimmViT, f"vit_{size}_patch14{registers}_dinov2")
            register_architecture(name, build)
            register_cards(
                WeightCard(
                    name=f"{name}.lvd142m",
                    architecture=name,
                    licence="Apache-2.0",
                    source="https://github.com/facebookresearch/dinov2",
                    pretrained_on=("LVD142M",),
                    citation="arXiv:2304.07193",
                    ignored=("mask_token",),
                )
            )
    test = partial(
        TimmViT,
        "vit_small_patch14_dinov2",
        embed_dim=32,
        num_heads=2,
        depth=4,
        image_size=56,
    )
    register_architecture("dinov2_test14", test)
    register_key_format(KeyFormat("DINOv2", _is_dinov2, from_dinov2))


_register()
