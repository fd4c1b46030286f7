"""DINOv3 vision transformers: Meta's, BrainDINO's, MedDINOv3's and FlexiCT's, bit-equal to the official definition.

timm's port (Apache-2.0) carries the network. Two things are added: the mask token, which
pretraining needs and which the paper counts, and the precision of the rotary embedding: the
official training code always computes it in bfloat16 (facebookresearch/dinov3 issue 243), so that
is how BrainDINO and MedDINOv3 were trained and used.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from timm.layers import LayerNorm
from torch import Tensor, nn

from nnunet_fm.encoders.families.timm_vit import TimmViT
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

RopeType = Literal["float32", "bfloat16", "float32_bf16_periods"]


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
            self.vit.rope.get_embed = self._bfloat16_table
            for block in self.vit.blocks:
                block.attn.q_norm = block.attn.k_norm = _Round()

    def _bfloat16_table(self, shape: Sequence[int]) -> Float[Tensor, "n d"]:
        """Sines and cosines computed in bfloat16 throughout (dinov3/layers/rope_position_encoding.py:57-106)."""
        periods = self.vit.rope.periods
        exact = {"device": periods.device, "dtype": torch.bfloat16}
        rows, columns = (torch.arange(0.5, n, **exact) / n for n in shape)
        coordinates = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(
            0, 1
        )
        coordinates = 2.0 * coordinates - 1.0
        angles = 2 * math.pi * coordinates[:, :, None] / periods.bfloat16()
        angles = angles.flatten(1).tile(2)
        return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)


class _Round(nn.Module):
    """Rounds queries and keys to bfloat16 before the rotation; timm casts them back after it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.bfloat16()
