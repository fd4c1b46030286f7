"""DINOv3 vision transformers: Meta's, BrainDINO's, MedDINOv3's and FlexiCT's.

They are bit-equal to the official definition. The network is timm's port (Apache-2.0) with two
additions: the mask token, which pretraining needs and which the paper counts, and the precision of
the rotary embedding. The official training code always computes it in bfloat16
(facebookresearch/dinov3 issue 243), so BrainDINO and MedDINOv3 were trained and used that way.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from timm.layers import LayerNorm
from torch import Tensor, nn

from nnunet_fm.encoders.families.timm_vit import TimmViT
from nnunet_fm.encoders.key_format import Converted, KeyFormat, State
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.weight_card import WeightCard
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some, unknown

RopeType = Literal["float32", "bfloat16", "float32_bf16_periods"]
TRAINING_CODE: dict[str, Any] = {"norm_eps": 1e-6, "rope": "bfloat16"}
META_RELEASE: dict[str, Any] = {"norm_eps": 1e-5, "rope": "float32_bf16_periods"}
PRETRAINING_HEADS = (
    r"dino_head\..*",
    r"ibot_head\..*",
    r"gram_.*",
    r"dino_loss\..*",
    r"ibot_patch_loss\..*",
)


class Dinov3(TimmViT):
    """DINOv3 ViT with CLS token, four storage (register) tokens, rotary positions and LayerScale.

    Args:
        model: timm's architecture name without the `_qkvb` ending, e.g. `vit_base_patch16_dinov3`.
        taps: tapped blocks, see `TimmViT`.
        norm_eps: epsilon of every LayerNorm: 1e-6 for weights from the training code (BrainDINO,
            MedDINOv3), 1e-5 for Meta's released ones.
        rope: precision of the rotary embedding: `bfloat16` (tables, and queries and keys rounded:
            the training code), `float32` (Meta's hub definition), `float32_bf16_periods` (Meta's
            released files, whose periods were rounded to bfloat16).
        qkv_bias: whether queries and values carry a bias; the key bias is always masked to zero.
        **arguments: passed to timm's constructor.
    """

    def __init__(
        self,
        model: str,
        taps: Sequence[int] | None = None,
        norm_eps: float = 1e-5,
        rope: str = "float32",
        qkv_bias: bool = False,
        **arguments: Any,
    ) -> None:
        if rope not in get_args(RopeType):
            raise InputError(unknown("rope precision", rope, get_args(RopeType)))
        name = f"{model}_qkvb" if qkv_bias else model
        super().__init__(name, taps, norm_layer=partial(LayerNorm, eps=norm_eps), **arguments)
        self.mask_token = nn.Parameter(torch.zeros(1, self.width))
        self.rope = rope
        periods = self.vit.rope.periods
        if rope != "float32":
            periods.copy_(periods.bfloat16())
        if rope == "bfloat16":
            self.vit.rope.get_embed = self.bfloat16_table
            for block in self.vit.blocks:
                block.attn.q_norm = block.attn.k_norm = _Round()

    def bfloat16_table(
        self, shape: Sequence[int], stretch: Float[Tensor, "1"] | None = None
    ) -> Float[Tensor, "n d"]:
        """Compute sines and cosines in bfloat16 throughout.

        Source: dinov3/layers/rope_position_encoding.py:57-106.

        Args:
            shape: rows and columns of patches.
            stretch: factor on the coordinates, bfloat16 (pretraining draws it); None: 1.
        """
        periods = self.vit.rope.periods
        exact = {"device": periods.device, "dtype": torch.bfloat16}
        centres = [torch.arange(0.5, n, **exact) / n for n in shape]
        grid = torch.stack(torch.meshgrid(*centres, indexing="ij"), dim=-1)
        coordinates = 2.0 * grid.flatten(0, 1) - 1.0
        if stretch is not None:
            coordinates = coordinates * stretch
        angles = 2 * math.pi * coordinates[:, :, None] / periods.bfloat16()
        angles = angles.flatten(1).tile(2)
        return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)


class _Round(nn.Module):
    """Round queries and keys to bfloat16 before the rotation; timm casts them back after it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.bfloat16()


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
    (r"\.mlp\.gate_proj\.", ".mlp.w1."),
)


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
    official: State = {}
    gated = any(".mlp.gate_proj." in k for k in state)
    for key, value in state.items():
        new = key
        for pattern, replacement in _TRANSFORMERS_RENAMES:
            new = re.sub(pattern, replacement, new)
        new = new.replace(".mlp.up_proj.", ".mlp.w2." if gated else ".mlp.fc1.")
        new = new.replace(".mlp.down_proj.", ".mlp.w3." if gated else ".mlp.fc2.")
        official[new] = value
    for key in [k for k in official if k.endswith(".attention.q_proj.weight")]:
        stem = key.removesuffix("q_proj.weight")
        fused = stem.replace(".attention.", ".attn.qkv.")
        parts = [official.pop(f"{stem}{p}_proj.weight", None) for p in "qkv"]
        if any(p is None for p in parts):
            raise InputError(f"{stem}*: one of q_proj, k_proj, v_proj is missing")
        official[f"{fused}weight"] = torch.cat([p for p in parts if p is not None])
        biases = [official.pop(f"{stem}{p}_proj.bias", None) for p in "qkv"]
        if any(b is not None for b in biases):
            width = official[f"{fused}weight"].shape[0] // 3
            official[f"{fused}bias"] = torch.cat(
                [torch.zeros(width) if b is None else b for b in biases]
            )
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


def drop_zero_bias(converted: Converted, options: Mapping[str, Any]) -> None:
    """Drop query and value biases that are all zero, as in Meta's distilled models.

    Raises:
        InputError: one is not zero, and the encoder is built without biases.
    """
    biases = [key for key in converted.tensors if key.endswith(("q_bias", "v_bias"))]
    if options.get("qkv_bias"):
        return
    non_zero = [key for key in biases if converted.tensors[key].any()]
    if non_zero:
        raise InputError(
            f"the file has a non-zero qkv bias ({some(non_zero)}) and the card's model has none; "
            "dropping it would change the features. Build it with one: "
            "--encoder-option qkv_bias=true"
        )
    for key in biases:
        del converted.tensors[key]
        converted.dropped[key] = "qkv bias, zero throughout"


_BRAINDINO_DATA = (
    "ICBM",
    "ID1000",
    "PIOP1",
    "PIOP2",
    "LONG579",
    "ABIDE",
    "PPMI",
    "TCGA-GBM",
    "CPTAC-GBM",
    "GLIS-RT",
    "REMBRANDT",
    "IvyGAP",
    "BraTS2025-GLI-PRE",
    "BraTS2023-PED",
    "BraTS2023-MEN",
    "BraTS2023-SSA",
    "MEN-SEG-CLASS",
    "ReMIND",
    "fastMRI-Brain",
    "ACRIN-DSC-MR-Brain",
    "ACRIN-FMISO-Brain",
)


def _is_dinov3(state: Mapping[str, Tensor]) -> bool:
    return "blocks.0.ls1.gamma" in state and "pos_embed" not in state


def _is_transformers(state: Mapping[str, Tensor]) -> bool:
    return "embeddings.patch_embeddings.weight" in state


def _register_architectures() -> None:
    published = {
        "vits16": "small",
        "vits16plus": "small_plus",
        "vitb16": "base",
        "vitl16": "large",
        "vith16plus": "huge_plus",
    }
    builders = {
        short: partial(Dinov3, f"vit_{size}_patch16_dinov3") for short, size in published.items()
    }
    small = partial(Dinov3, "vit_small_patch16_dinov3")
    builders["vitt16"] = partial(small, embed_dim=192, num_heads=3)
    builders["nano8"] = partial(small, patch_size=8, embed_dim=128, num_heads=2, depth=4)
    builders["test16"] = partial(small, embed_dim=32, num_heads=2, depth=4)
    for short, build in builders.items():
        name = f"dinov3_{short}"
        register_architecture(name, build, PRETRAINING_HEADS, drop_zero_bias)
        register_cards(
            WeightCard(
                name=f"{name}.trained",
                architecture=name,
                source="any checkpoint written by the DINOv3 training code or by this project",
                licence="as its author says",
                options=TRAINING_CODE,
                ignored=PRETRAINING_HEADS,
            )
        )


def _meta_card(short: str, data: str) -> WeightCard:
    return WeightCard(
        name=f"dinov3_{short}.{data.lower()}",
        architecture=f"dinov3_{short}",
        options=META_RELEASE,
        licence="DINOv3 License",
        source="https://ai.meta.com/resources/models-and-libraries/dinov3-downloads",
        pretrained_on=(data,),
        citation="arXiv:2508.10104",
        allowed_missing=("mask_token",),  # timm's and some transformers files lack it
    )


_MEDICAL: dict[str, Any] = {
    "architecture": "dinov3_vitb16",
    "options": TRAINING_CODE,
    "ignored": PRETRAINING_HEADS,
}

register_cards(
    WeightCard(
        name="synth_vitt16.v1",
        architecture="dinov3_vitt16",
        options=TRAINING_CODE,
        licence="Apache-2.0, as this package",
        source="bundled with this package; made by the recipe synth_vitt16",
        pretrained_on=("brains made by nnunet-fm",),
        shipped="synth_vitt16.v1.safetensors",
    ),
    *(_meta_card(s, "LVD1689M") for s in ("vits16", "vits16plus", "vitb16", "vitl16")),
    _meta_card("vitl16", "SAT493M"),
    _meta_card("vith16plus", "LVD1689M"),
)
_register_architectures()
register_cards(
    WeightCard(
        name="braindino_vitb16.mri6m",
        licence="weights not released (2026-04)",
        source="the authors of arXiv:2604.27277",
        pretrained_on=_BRAINDINO_DATA,
        citation="arXiv:2604.27277",
        **_MEDICAL,
    ),
    WeightCard(
        name="meddinov3_vitb16.ct3m",
        licence="Apache-2.0 as stated on its page; derived from the DINOv3 code",
        source="https://github.com/ricklisz/MedDINOv3",
        pretrained_on=("CT-3M",),
        citation="arXiv:2509.02379",
        **_MEDICAL,
    ),
    WeightCard(
        name="flexict_vitb16.ct",
        licence="MIT as stated by its repository; derived from the DINOv3 code",
        source="the FlexiCT repository",
        pretrained_on=("CT, see its paper",),
        **_MEDICAL,
    ),
)
register_key_format(KeyFormat("transformers DINOv3", _is_transformers, from_transformers_dinov3))
register_key_format(KeyFormat("DINOv3", _is_dinov3, from_dinov3, prefixes=("dino_encoder.",)))
