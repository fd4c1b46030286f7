"""DINOv3 vision transformers: Meta's, BrainDINO's and MedDINOv3's.

They are bit-equal to the official definition. The network is timm's port (Apache-2.0) with two
additions: the mask token, which pretraining needs and which the paper counts, and the precision of
the rotary embedding. The official training code always computes it in bfloat16
(facebookresearch/dinov3 issue 243), so BrainDINO and MedDINOv3 were trained and used that way.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from timm.layers import LayerNorm
from torch import Tensor, nn

from nnunet_fm.encoders.families.dinov3_keys import from_dinov3, from_transformers_dinov3
from nnunet_fm.encoders.families.rotary import Round, rotary_table
from nnunet_fm.encoders.families.timm_vit import TimmViT
from nnunet_fm.encoders.key_format import Converted, KeyFormat, takes_slices
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
    withdraw_card,
)
from nnunet_fm.encoders.weight_card import OWN, WeightCard, WithdrawnCard
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
                block.attn.q_norm = block.attn.k_norm = Round()

    def bfloat16_table(
        self, shape: Sequence[int], stretch: Float[Tensor, "1"] | None = None
    ) -> Float[Tensor, "n d"]:
        """Compute sines and cosines in bfloat16 throughout, see `rotary_table`."""
        return rotary_table(shape, self.vit.rope.periods, stretch)


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
# The test images of the benchmarks were among the slices of CT-3M (ricklisz/MedDINOv3 issue 4).
# LiTS is the liver task of the Medical Segmentation Decathlon.
_MEDDINOV3_DATA = ("CT-3M", "AMOS22", "BTCV", "KiTS23", "LiTS", "Liver-MSD")


def _is_dinov3(state: Mapping[str, Tensor]) -> bool:
    of_slices = takes_slices(state) and "patch_embed_3D.proj.weight" not in state
    return of_slices and "blocks.0.ls1.gamma" in state and "pos_embed" not in state


def _is_transformers(state: Mapping[str, Tensor]) -> bool:
    return "embeddings.patch_embeddings.weight" in state


def _register_architectures() -> list[str]:
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
        register_architecture(f"dinov3_{short}", build, PRETRAINING_HEADS, drop_zero_bias)
    return [f"dinov3_{short}" for short in builders]


def _trained_card(architecture: str) -> WeightCard:
    return WeightCard(
        name=f"{architecture}.trained",
        architecture=architecture,
        source="any checkpoint written by the DINOv3 training code or by this project",
        licence=OWN,
        options=TRAINING_CODE,
        ignored=PRETRAINING_HEADS,
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

_architectures = _register_architectures()
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
    *map(_trained_card, _architectures),
    WeightCard(
        name="braindino_vitb16.mri6m",
        licence="weights not released (2026-04)",
        source="the authors of arXiv:2604.27277",
        pretrained_on=_BRAINDINO_DATA,
        downstream="blocks 2, 5, 8, 11 after the final norm; the CLS token, averaged over slices",
        citation="arXiv:2604.27277",
        **_MEDICAL,
    ),
    WeightCard(
        name="meddinov3_vitb16.ct3m",
        licence="Apache-2.0 as stated on its page; derived from the DINOv3 code",
        source="model.pth of https://github.com/ricklisz/MedDINOv3",
        files=("*/*meddinov3*/model.pth",),
        pretrained_on=_MEDDINOV3_DATA,
        citation="arXiv:2509.02379",
        intensity="CT clipped to -1000 to 1000 HU, minus 65.1084, divided by 178.0166",
        **_MEDICAL,
    ),
)
withdraw_card(
    WithdrawnCard(
        name="flexict_vitb16.ct",
        reason=(
            "FlexiCT's released encoders (864 wide, 16 blocks, patches of 8) are not this network; "
            "their cards are flexict_vit8.ct2d, flexict_vit8.ct3d and flexict_vit8.vlm. For a file "
            "of your own that fits a DINOv3 ViT-B/16: --card dinov3_vitb16.trained"
        ),
        instead="dinov3_vitb16.trained",
    )
)
register_key_format(KeyFormat("transformers DINOv3", _is_transformers, from_transformers_dinov3))
register_key_format(KeyFormat("DINOv3", _is_dinov3, from_dinov3, prefixes=("dino_encoder.",)))
