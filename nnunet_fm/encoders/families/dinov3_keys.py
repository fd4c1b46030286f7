"""Names of DINOv3's tensors: official, of `transformers`, and back from this project's own."""

from collections.abc import Mapping

import torch
from torch import Tensor

from nnunet_fm.encoders.key_format import Converted, State, fuse, renamed
from nnunet_fm.internal.errors import InputError

_DINOV3_RENAMES = (
    ("storage_tokens", "reg_token"),
    (".ls1.gamma", ".gamma_1"),
    (".ls2.gamma", ".gamma_2"),
)
_GATED_RENAMES = (
    (".mlp.w1.", ".mlp.fc1_g."),
    (".mlp.w2.", ".mlp.fc1_x."),
    (".mlp.w3.", ".mlp.fc2."),
)
_TRANSFORMERS_RENAMES = (
    (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
    (r"^embeddings\.register_tokens", "storage_tokens"),
    (r"^embeddings\.", ""),
    (r"^(model\.)?layer\.", "blocks."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1", r".ls\1.gamma"),
)
_GATED = (
    (r"\.mlp\.gate_proj\.", ".mlp.w1."),
    (r"\.mlp\.up_proj\.", ".mlp.w2."),
    (r"\.mlp\.down_proj\.", ".mlp.w3."),
)
_PLAIN = ((r"\.mlp\.up_proj\.", ".mlp.fc1."), (r"\.mlp\.down_proj\.", ".mlp.fc2."))
_QKV = ("attention.q_proj", "attention.k_proj", "attention.v_proj")


def from_dinov3(state: Mapping[str, Tensor]) -> Converted:
    """Convert official DINOv3 names: `storage_tokens`, `ls1.gamma`, fused `attn.qkv`."""
    result = Converted({})
    masks = {k: v for k, v in state.items() if k.endswith("qkv.bias_mask")}
    for key, value in state.items():
        if key == "rope_embed.periods":
            result.dropped[key] = f"recomputed; stored as {str(value.dtype).removeprefix('torch.')}"
        elif key.startswith("local_cls_norm."):
            result.dropped[key] = "norm of local crops, used in pretraining only"
        elif key in masks:
            result.dropped[key] = "applied to the bias"
        elif key.endswith("attn.qkv.bias"):
            _split_qkv_bias(result, key, value, masks.get(f"{key}_mask"))
        elif key == "mask_token":
            result.tensors[key] = value.reshape(1, -1)
        else:
            for old, new in (*_DINOV3_RENAMES, *_GATED_RENAMES):
                key = key.replace(old, new)
            result.tensors[f"vit.{key}"] = value
    return result


def _split_qkv_bias(result: Converted, key: str, bias: Tensor, mask: Tensor | None) -> None:
    """Split a fused bias into those of queries and values.

    The bias of the keys must be masked or zero: timm's attention has none.
    """
    query, middle, value = bias.chunk(3)
    masked = mask is not None and not mask.chunk(3)[1].nan_to_num(0).any()
    if not masked and middle.nan_to_num(1).any():
        raise InputError(
            f"{key} has a non-zero key bias that is not masked (mask_k_bias: false in its "
            "training); timm's DINOv3 cannot hold it, and dropping it would change the features. "
            "Allowed: checkpoints trained with mask_k_bias: true."
        )
    stem = f"vit.{key.removesuffix('qkv.bias')}"
    result.tensors |= {f"{stem}q_bias": query.clone(), f"{stem}v_bias": value.clone()}


def from_transformers_dinov3(state: Mapping[str, Tensor]) -> Converted:
    """Convert `transformers` DINOv3 names (separate q, k, v), through the official ones."""
    gated = any(".mlp.gate_proj." in key for key in state)
    layers = _GATED if gated else _PLAIN
    official = renamed(state, (*_TRANSFORMERS_RENAMES, *layers))
    fuse(official, _QKV, "attn.qkv")
    return from_dinov3(official)


def to_dinov3(state: Mapping[str, Tensor]) -> State:
    """Convert this project's names to the official ones (`dino_encoder` in BrainDINO's release)."""
    official: State = {}
    gated = any(".mlp.fc1_g." in k for k in state)
    for key, value in state.items():
        if key.endswith(("q_bias", "v_bias")):
            continue
        new = key.removeprefix("vit.")
        for theirs, ours in (*_DINOV3_RENAMES, *(_GATED_RENAMES if gated else ())):
            new = new.replace(ours, theirs)
        official[new] = value
    for key in [k for k in state if k.endswith("attn.q_bias")]:
        stem = key.removesuffix("q_bias")
        query, value = state[key], state[f"{stem}v_bias"]
        official[f"{stem.removeprefix('vit.')}qkv.bias"] = torch.cat(
            [query, torch.zeros_like(query), value]
        )
    return official
