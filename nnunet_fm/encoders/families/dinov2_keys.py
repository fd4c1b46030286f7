"""Names of DINOv2's tensors: official, of `transformers`, and back from this project's own."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from nnunet_fm.encoders.key_format import Converted, State, fuse, renamed

_TRANSFORMERS = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.(weights_out|down_proj)\.", ".mlp.w3."),
    (r"^layernorm\.", "norm."),
)
_QKV = (
    ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    ("attention.q_proj", "attention.k_proj", "attention.v_proj"),  # in the memory of transformers 5
)
_GATED = ("mlp.gate_proj", "mlp.up_proj")  # in the memory of transformers 5, too


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
        name = (
            without_chunks(key).replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
        )
        result.tensors[f"vit.{name}"] = value
    return result


def without_chunks(key: str) -> str:
    """Return a name whose block is numbered by chunk and block with the block's number alone."""
    return re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", key)


def from_transformers_dinov2(state: Mapping[str, Tensor]) -> Converted:
    """Convert `transformers` DINOv2 names (separate q, k, v), through the official ones."""
    official = renamed(state, _TRANSFORMERS)
    for names in _QKV:
        fuse(official, names, "attn.qkv")
    fuse(official, _GATED, "mlp.w12")
    return from_dinov2(official)


def to_dinov2(state: Mapping[str, Tensor]) -> State:
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
