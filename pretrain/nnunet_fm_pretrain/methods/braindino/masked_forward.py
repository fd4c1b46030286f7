"""The forward pass of pretraining: masked patches are replaced by the mask token."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nnunet_fm.encoders.families.dinov3 import Dinov3


@dataclass
class Tokens:
    """Tokens after the final norm."""

    cls: Float[Tensor, "b d"]
    patches: Float[Tensor, "b n d"]


def forward_tokens(
    encoder: Dinov3,
    x: Float[Tensor, "b c h w"],
    masks: Bool[Tensor, "b th tw"] | None = None,
    stretch: float | None = None,
) -> Tokens:
    """Compute the tokens of `x`; equal to timm's `forward_features` where nothing is masked.

    Args:
        encoder: timm's DINOv3 network and its mask token.
        x: images; sides are multiples of the patch size.
        masks: True where the patch is hidden.
        stretch: the rotary coordinates of each block are scaled by a number of its own, drawn
            from exp(U(-ln stretch, ln stretch)); None: not scaled.
    """
    vit = encoder.vit
    x = vit.patch_embed(x)
    grid = (x.shape[1], x.shape[2])
    if masks is not None:
        x = torch.where(masks[..., None], encoder.mask_token.to(x.dtype), x)
    x, rotary = vit._pos_embed(x)
    x = vit.norm_pre(x)
    for block in vit.blocks:
        if stretch is not None:
            rotary = encoder.bfloat16_table(grid, draw_stretch(stretch).to(x.device))
        x = encoder.run_block(block, x, rope=rotary)
    x = vit.norm(x)
    return Tokens(x[:, 0], x[:, vit.num_prefix_tokens :])


def draw_stretch(largest: float) -> Float[Tensor, "1"]:
    """Draw from exp(U(-ln largest, ln largest)) in bfloat16.

    Source: dinov3/layers/rope_position_encoding.py, which is called for every block.
    """
    limit = math.log(largest)
    return torch.empty(1, dtype=torch.bfloat16).uniform_(-limit, limit).exp()


def rescale_positions(encoder: Dinov3, factor: float) -> None:
    """Stretch the rotary coordinates of each call by exp(U(-ln factor, ln factor)).

    Only in training mode. One number holds for all blocks, unlike in DINOv3's code. The angles are
    linear in the coordinates, so the periods are divided during the call.
    """
    rope = encoder.vit.rope
    exact = rope.get_embed

    def stretched(shape: Sequence[int]) -> Tensor:
        if not encoder.training:
            return exact(shape)
        stretch = (
            torch.empty(1)
            .uniform_(-math.log(factor), math.log(factor))
            .exp()
            .to(rope.periods.device)
        )
        periods = rope.periods
        try:
            rope.periods = periods / stretch
            return exact(shape)
        finally:
            rope.periods = periods

    rope.get_embed = stretched
