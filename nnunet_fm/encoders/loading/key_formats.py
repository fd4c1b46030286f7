"""Key formats of published checkpoints, turned into the names of our encoders and back.

Every function takes and gives a flat state dict. Nothing is dropped in silence: what a format
carries beyond the encoder is returned with the reason.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nnunet_fm.internal.errors import InputError

State = dict[str, Tensor]


@dataclass
class Converted:
    """A state dict in our names, and what was left out of it, by reason."""

    tensors: State
    dropped: dict[str, str] = field(default_factory=dict)


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
    """Official DINOv3 names (`storage_tokens`, `ls1.gamma`, fused `attn.qkv`) to ours."""
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
    """Queries and values keep their bias; the key's must be masked or zero, as our attention has none."""
    query, middle, value = bias.chunk(3)
    masked = mask is not None and not mask.chunk(3)[1].nan_to_num(0).any()
    if not masked and middle.nan_to_num(1).any():
        raise InputError(
            f"{key} has a non-zero key bias that is not masked (mask_k_bias: false in its training); "
            "timm's DINOv3 cannot hold it, and dropping it would change the features. "
            "Allowed: checkpoints trained with mask_k_bias: true."
        )
    stem = f"vit.{key.removesuffix('qkv.bias')}"
    result.tensors |= {f"{stem}q_bias": query.clone(), f"{stem}v_bias": value.clone()}


def from_transformers_dinov3(state: Mapping[str, Tensor]) -> Converted:
    """`transformers` DINOv3 names (separate q, k, v) to ours, by way of the official ones."""
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


def from_timm(state: Mapping[str, Tensor]) -> Converted:
    """Timm's own names, and ours (which already stand under `vit.`)."""
    if any(k.startswith("vit.") for k in state):
        return Converted(dict(state))
    tensors = {k if k == "mask_token" else f"vit.{k}": v for k, v in state.items()}
    dropped = {k: "classification head" for k in tensors if k.startswith("vit.head.")}
    return Converted({k: v for k, v in tensors.items() if k not in dropped}, dropped)


def from_dinov2(state: Mapping[str, Tensor]) -> Converted:
    """Official DINOv2 names to timm's: registers, and the CLS position folded into the CLS token."""
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
    renamed = {
        k.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."): v
        for k, v in tensors.items()
    }
    result.tensors = {f"vit.{k}": v for k, v in renamed.items()}
    return result


def from_monai_vit(state: Mapping[str, Tensor]) -> Converted:
    """MONAI's names of a ViT to ours. Some versions of MONAI save cross attention that no plain ViT uses."""
    result = Converted({})
    for key, value in state.items():
        if ".cross_attn." in key or ".norm_cross_attn." in key:
            result.dropped[key] = "cross attention, not used in a plain ViT"
        elif key.startswith("conv3d_transpose"):
            result.dropped[key] = "decoder of the pretraining (ViTAutoEnc)"
        else:
            result.tensors[key if key.startswith("vit.") else f"vit.{key}"] = value
    return result


_SWIN_REST = re.compile(
    r"(rotation_head|contrastive_head|convTrans3d|conv|norm|encoder\d+|decoder\d+|out)\..*"
)
_UNET_REST = re.compile(r"(decoder|seg_layers)\..*")


def from_monai_swin(state: Mapping[str, Tensor]) -> Converted:
    """MONAI's names of a Swin transformer, of SwinUNETR or of its pretraining, to ours."""
    renamed = {k.replace(".mlp.fc", ".mlp.linear"): v for k, v in state.items()}
    return _placed(renamed, "swin.", _SWIN_REST, "decoder or head of the pretraining")


def from_unet(state: Mapping[str, Tensor]) -> Converted:
    """nnU-Net's (and nnssl's) names of a U-Net's encoder to ours; the decoder is left out."""
    return _placed(state, "body.", _UNET_REST, "decoder of the pretraining")


def _placed(
    state: Mapping[str, Tensor], where: str, rest: re.Pattern[str], reason: str
) -> Converted:
    """The tensors under `where` in our encoder, without the rest."""
    result = Converted({})
    for key, value in state.items():
        if rest.fullmatch(key):
            result.dropped[key] = reason
        else:
            result.tensors[key if key.startswith(where) else f"{where}{key}"] = value
    return result


def from_brainmvp(state: Mapping[str, Tensor]) -> Converted:
    """BrainMVP's names to ours: the encoder below `uniformer`, beside it a decoder and learned templates."""
    return _placed(
        state,
        "uniformer.",
        re.compile(r"decoder\..*|rep_template"),
        "decoder or template of the pretraining",
    )


def from_bmmae(state: Mapping[str, Tensor]) -> Converted:
    """BM-MAE's names to ours; its decoder holds the mask tokens."""
    blocks = {k: v for k, v in state.items() if not k.startswith("decoder.")}
    result = from_monai_vit(blocks)
    result.dropped |= {k: "decoder of the pretraining" for k in state if k.startswith("decoder.")}
    return result


_PRIMUS_REST = re.compile(r"(decoder|up_projection|mask_token|.*_head|.*projector)(\..*)?")


def from_primus(state: Mapping[str, Tensor]) -> Converted:
    """Names of Primus as nnssl has them, which are ours; the decoder is left out."""
    return _placed(state, "", _PRIMUS_REST, "decoder or head of the pretraining")


_AMAES = re.compile(
    r"(?:in_conv|encoder_conv(?P<stage>\d))\.conv(?P<conv>\d)\.(?P<part>conv|norm)\.(?P<name>\w+)"
)


def from_amaes(state: Mapping[str, Tensor]) -> Converted:
    """AMAES' names (`in_conv.conv1.conv`, `encoder_conv1.conv1.norm`) to ours, which hold every tensor twice."""
    result = Converted({})
    for key, value in state.items():
        match = _AMAES.fullmatch(key)
        if match is None and key.startswith(("decoder", "out_conv", "upsample", "head")):
            result.dropped[key] = "decoder of the pretraining"
        elif match is None:
            result.tensors[key] = value  # the loader will say that it is unexpected
        else:
            stage, place = match["stage"] or "0", {"conv": "0", "norm": "1"}[match["part"]]
            stem = (
                f"body.stages.{stage}.{1 if match['stage'] else 0}.convs.{int(match['conv']) - 1}"
            )
            for part in (match["part"], f"all_modules.{place}"):
                result.tensors[f"{stem}.{part}.{match['name']}"] = value
    return result


def to_dinov3(state: Mapping[str, Tensor]) -> State:
    """Our names of a DINOv3 encoder to the official ones (the reference release's `dino_encoder`)."""
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


Detector = Callable[[Mapping[str, Tensor]], bool]
Converter = Callable[[Mapping[str, Tensor]], Converted]

UNET_BLOCKS = ("0.convs.0", "blocks.0.conv1")  # plain and residual

FORMATS: dict[str, tuple[Detector, Converter]] = {
    "nnunet-fm": (lambda s: "vit.patch_embed.proj.weight" in s, from_timm),
    "transformers DINOv3": (
        lambda s: "embeddings.patch_embeddings.weight" in s,
        from_transformers_dinov3,
    ),
    "DINOv3": (lambda s: "blocks.0.ls1.gamma" in s and "pos_embed" not in s, from_dinov3),
    "DINOv2": (
        lambda s: "pos_embed" in s and ("mask_token" in s or "register_tokens" in s),
        from_dinov2,
    ),
    "MONAI Swin": (
        lambda s: any(f"{p}layers1.0.blocks.0.norm1.weight" in s for p in ("", "swin.")),
        from_monai_swin,
    ),
    "timm": (lambda s: "patch_embed.proj.weight" in s, from_timm),
    "MONAI ViT": (
        lambda s: any(f"{p}patch_embedding.position_embeddings" in s for p in ("", "vit.")),
        from_monai_vit,
    ),
    "nnU-Net encoder": (
        lambda s: any(
            f"{p}stages.0.{b}.conv.weight" in s for p in ("", "body.") for b in UNET_BLOCKS
        ),
        from_unet,
    ),
    "BrainMVP": (
        lambda s: any(f"{p}patch_embed1.proj.weight" in s for p in ("", "uniformer.")),
        from_brainmvp,
    ),
    "BM-MAE": (
        lambda s: any(
            f"{p}tokenizers.t1.patch_embedding.patch_embeddings.weight" in s for p in ("", "vit.")
        ),
        from_bmmae,
    ),
    "Primus": (lambda s: "down_projection.proj.weight" in s and "eva.pos_embed" in s, from_primus),
    "AMAES": (lambda s: "in_conv.conv1.conv.weight" in s, from_amaes),
}


BRAINIAC_V1 = (
    "this is the BrainIAC of 2025, a ResNet50; the published one (Nature Neuroscience 2026) is a ViT-B/16, whose file "
    "holds backbone.patch_embedding.*. Get that one: nnunet-fm encoders show brainiac_vitb16.v2"
)


def refused(state: Mapping[str, Tensor]) -> str:
    """Why a known file is not used, or nothing."""
    stems = [v.shape for k, v in state.items() if k.endswith("conv1.weight")]
    return BRAINIAC_V1 if (64, 1, 7, 7, 7) in stems else ""


def detect(state: Mapping[str, Tensor]) -> str | None:
    """Name of the format that the keys are in, or None."""
    return next((name for name, (matches, _) in FORMATS.items() if matches(state)), None)
